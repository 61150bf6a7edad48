import EgoChefCore

/// The models with what they saw last: crop, encoder, windows, head and smoothing. To be used on one queue.
final class Recognition {
    /// Shortest windows without a frame, after which what was seen before says nothing about what comes.
    static let gapWindows = 1.5
    /// So many gaps in a row, and frames come too rarely.
    static let manyGaps = 3

    let runner: ModelRunner
    private(set) var rolling: RollingRecogniser
    var smoother: Smoother
    private let cropper: PictureCropper
    private var lastS: Double?
    private var numGaps = 0

    var isTooSlow: Bool { numGaps >= Recognition.manyGaps }

    init(runner: ModelRunner, settings: LiveSettings) throws {
        let about = runner.about
        self.runner = runner
        rolling = try RollingRecogniser(clip: about.clip, windowsS: settings.windowsS)
        smoother = Smoother(verbs: about.verbs, nouns: about.nouns, settings: settings.smoothing)
        cropper = try PictureCropper(imageSize: about.clip.imageSize, resizeSize: about.clip.resizeSize)
    }

    /// Begins anew: what comes next does not follow what was.
    func forget() {
        rolling.forget()
        smoother.forget()
        lastS = nil
    }

    /// A frame's features (D).
    func encode(_ frame: Frame) throws -> [Float] {
        try runner.encode(cropper.crop(frame.buffer))
    }

    /// Keeps a frame's features, and says what the windows that end with it show; nil where none is full.
    func see(_ frame: Frame, features: [Float]) throws -> Prediction? {
        watchGap(before: frame.timeS)
        try rolling.keep(timeS: frame.timeS, features: features)
        let runner = self.runner
        guard let probs = try rolling.probs(classify: { try runner.classify($0) }) else { return nil }
        return smoother.update(timeS: frame.timeS, probs: probs)
    }

    private func watchGap(before timeS: Double) {
        if let lastS {
            let gapS = timeS - lastS
            let isGap = gapS > Recognition.gapWindows * (rolling.windowsS.first ?? 1)
            numGaps = isGap ? numGaps + 1 : 0
            // A clock that was set back begins another stream too.
            if isGap || gapS <= 0 { forget() }
        }
        lastS = timeS
    }
}
