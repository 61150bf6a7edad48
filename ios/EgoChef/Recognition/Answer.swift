import EgoChefCore

/// What the recognition says after a frame.
struct Answer: Sendable {
    /// Of the frame, on the source's clock, seconds.
    let timeS: Double
    /// nil until the shortest window is full, and where something failed.
    let prediction: Prediction?
    let stats: LiveStats
    /// Width over height of the frame.
    let aspect: Double
    /// Several times in a row, frames came too far apart to fill the shortest window.
    let isTooSlow: Bool
    /// Why there is no prediction.
    let fault: String?
}

/// How fast it all goes.
struct LiveStats: Equatable, Sendable {
    /// Frames that came from the source, a second.
    var sourcePerS = 0.0
    /// Frames that were encoded, a second.
    var encodedPerS = 0.0
    /// Predictions, a second.
    var predictionsPerS = 0.0
    /// Crop and encoder, a frame.
    var encoder: Spread?
    /// Windows, head and smoothing, a prediction.
    var head: Spread?
    /// From capture to prediction.
    var delay: Spread?
}
