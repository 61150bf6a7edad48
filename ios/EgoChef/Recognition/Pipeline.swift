import CoreVideo
import EgoChefCore
import Foundation
import QuartzCore

/// From frames to answers, one frame at a time: the newest one is taken when the one before is done.
///
/// Frames come from any thread; what is under `lock` is touched by all, the rest on `queue` alone.
final class Pipeline: @unchecked Sendable {
    /// To be followed by one task, for good; who is slow gets the newest.
    let answers: AsyncStream<Answer>

    private let tell: AsyncStream<Answer>.Continuation
    private let queue = DispatchQueue(label: "org.egochef.recognition", qos: .userInitiated)
    private let lock = NSLock()

    // Under `lock`
    private var newest: Frame?
    private var isBusy = false
    private var encodeEvery = 1
    private var numSinceTaken = 0
    private var came = RateMeter()

    // On `queue`
    private var recognition: Recognition?
    private var meters = Meters()

    init() {
        (answers, tell) = AsyncStream.makeStream(of: Answer.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// Recognises with these models from now on; nil: with none.
    func use(_ runner: ModelRunner?, settings: LiveSettings) {
        queue.async {
            guard let runner else {
                self.recognition = nil
                return
            }
            if let recognition = self.recognition, recognition.runner === runner,
                recognition.rolling.windowsS == settings.windowsS {
                recognition.smoother.settings = settings.smoothing
                return
            }
            do {
                self.recognition = try Recognition(runner: runner, settings: settings)
                self.meters = Meters()
            } catch {
                self.recognition = nil
                self.tellFault(error, frame: nil)
            }
        }
    }

    /// Only every `encodeEvery`-th frame is encoded.
    func setPace(encodeEvery: Int) {
        lock.withLock { self.encodeEvery = max(1, encodeEvery) }
    }

    /// Begins anew: what comes next does not follow what was.
    func forget() {
        lock.withLock { newest = nil }
        queue.async { self.recognition?.forget() }
    }

    /// Takes a frame where there is nothing newer by the time it can be encoded.
    func offer(_ frame: Frame) {
        let mustBegin = lock.withLock { () -> Bool in
            came.tick(atS: frame.capturedAtS)
            numSinceTaken += 1
            guard numSinceTaken >= encodeEvery else { return false }
            newest = frame
            if isBusy { return false }
            isBusy = true
            return true
        }
        if mustBegin { queue.async { self.work() } }
    }

    // MARK: On `queue`

    private func work() {
        guard let frame = takeNewest() else { return }
        autoreleasepool { see(frame) }
        // Not a loop: settings and `forget` have their turn between frames.
        queue.async { self.work() }
    }

    private func takeNewest() -> Frame? {
        lock.withLock { () -> Frame? in
            guard let frame = newest else {
                isBusy = false
                return nil
            }
            newest = nil
            numSinceTaken = 0
            return frame
        }
    }

    private func see(_ frame: Frame) {
        guard let recognition else { return }
        do {
            let beganAtS = CACurrentMediaTime()
            let features = try recognition.encode(frame)
            let encodedAtS = CACurrentMediaTime()
            let prediction = try recognition.see(frame, features: features)
            let doneAtS = CACurrentMediaTime()
            meters.encoded.tick(atS: encodedAtS)
            meters.encoder.add(ms: 1000 * (encodedAtS - beganAtS))
            if prediction != nil {
                meters.predicted.tick(atS: doneAtS)
                meters.head.add(ms: 1000 * (doneAtS - encodedAtS))
                let delayMs = 1000 * (doneAtS - frame.capturedAtS)
                // A camera on another clock than the host's would give nonsense.
                if delayMs >= 0 && delayMs < 60_000 { meters.delay.add(ms: delayMs) }
            }
            tell.yield(Answer(
                timeS: frame.timeS,
                prediction: prediction,
                stats: currentStats(nowS: doneAtS),
                aspect: Pipeline.aspect(of: frame),
                isTooSlow: recognition.isTooSlow,
                fault: nil
            ))
        } catch {
            recognition.forget()
            tellFault(error, frame: frame)
        }
    }

    private func tellFault(_ error: any Error, frame: Frame?) {
        tell.yield(Answer(
            timeS: frame?.timeS ?? 0,
            prediction: nil,
            stats: currentStats(nowS: CACurrentMediaTime()),
            aspect: frame.map(Pipeline.aspect(of:)) ?? 1,
            isTooSlow: false,
            fault: error.localizedDescription
        ))
    }

    private func currentStats(nowS: Double) -> LiveStats {
        let sourcePerS = lock.withLock { came.perS(nowS: nowS) }
        return meters.stats(nowS: nowS, sourcePerS: sourcePerS)
    }

    private static func aspect(of frame: Frame) -> Double {
        Double(CVPixelBufferGetWidth(frame.buffer)) / Double(max(1, CVPixelBufferGetHeight(frame.buffer)))
    }
}

/// What is measured while it runs.
private struct Meters {
    /// Numbers on the screen change no faster than people read, seconds.
    static let refreshS = 0.5

    var encoded = RateMeter()
    var predicted = RateMeter()
    var encoder = LatencyStats()
    var head = LatencyStats()
    var delay = LatencyStats()
    private var shown = LiveStats()
    private var shownAtS = -Double.infinity

    mutating func stats(nowS: Double, sourcePerS: Double) -> LiveStats {
        if nowS - shownAtS < Meters.refreshS { return shown }
        shownAtS = nowS
        shown = LiveStats(
            sourcePerS: sourcePerS,
            encodedPerS: encoded.perS(nowS: nowS),
            predictionsPerS: predicted.perS(nowS: nowS),
            encoder: encoder.recent(),
            head: head.recent(),
            delay: delay.recent()
        )
        return shown
    }
}
