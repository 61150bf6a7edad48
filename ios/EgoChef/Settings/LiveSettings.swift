import EgoChefCore

/// What the person chose, as plain values.
struct LiveSettings: Equatable, Sendable {
    /// Seconds that a prediction sees; rising, never empty.
    var windowsS: [Double]
    var smoothing: Smoothing
    /// Only every so-many-th frame is encoded.
    var encodeEvery: Int
    /// The screen stays on while it recognises.
    var keepsAwake: Bool

    static let standard = LiveSettings(
        windowsS: RollingRecogniser.defaultWindowsS, smoothing: Smoothing(), encodeEvery: 1, keepsAwake: true
    )
}
