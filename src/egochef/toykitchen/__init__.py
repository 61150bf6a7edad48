"""Draws a small EK-100 that moves: videos and annotation files in the official layout, from a seed."""

from egochef.toykitchen.config import ToyConfig
from egochef.toykitchen.draw import draw_kitchen

__all__ = ["ToyConfig", "draw_kitchen"]
