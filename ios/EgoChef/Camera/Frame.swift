import CoreVideo

/// A picture on its way to the recogniser.
///
/// Nobody writes into the buffer after it is handed over, so it may cross threads.
struct Frame: @unchecked Sendable {
    /// 32BGRA, upright, of any size.
    let buffer: CVPixelBuffer
    /// On the source's clock, seconds; rises within a stream.
    let timeS: Double
    /// When it was captured (or shown, of a file), on the clock of `CACurrentMediaTime`, seconds.
    let capturedAtS: Double
}

/// How a source of frames does.
enum SourceState: Equatable, Sendable {
    case idle
    case starting
    case running
    /// By the system, which also ends it; with the reason.
    case interrupted(String)
    case failed(String)
    /// A video file, played to its end.
    case ended
}
