"""The explorer: a local page to browse a data folder's segments and what models say of them.

The way of a request: `server` (a socket of this machine alone) -> `app` (what may be asked) -> `query` (what is wanted)
-> `index` (columns of all segments), `detail` (one segment's scores) or `pictures` (its frames) -> JSON or JPEG.
"""
