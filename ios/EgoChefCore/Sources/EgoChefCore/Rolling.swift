import Foundation

/// What the rolling recogniser refuses.
public enum RollingError: LocalizedError, Equatable, Sendable {
    /// A frame that does not come after the one before it.
    case timesMustRise(timeS: Double, afterS: Double)
    /// A frame without a time.
    case notATime(Double)
    /// A frame with another number of features than the ones before it.
    case numFeatures(Int, expected: Int)
    /// No windows, or lengths that cannot be.
    case windows([Double])
    /// A clip with a fault, in words.
    case clip(String)

    public var errorDescription: String? {
        switch self {
        case .timesMustRise(let timeS, let afterS):
            return "a frame at \(timeS) s after one at \(afterS) s: times must rise"
        case .notATime(let timeS):
            return "a frame at \(timeS) s: expected a finite time"
        case .numFeatures(let count, let expected):
            return "a frame with \(count) features after ones with \(expected): expected as many"
        case .windows(let windowsS):
            return "windows of \(windowsS) s: expected one or more, each above 0 and at most 3600 s"
        case .clip(let fault):
            return fault
        }
    }
}

/// The features of the last `keepS` seconds, by time.
public struct FeatureRing: Sendable {
    /// A frame that begins this much after a wanted time still answers it, seconds.
    public static let timeToleranceS = 1e-3

    /// Seconds that are kept.
    public let keepS: Double
    private var timesS: [Double] = []
    private var features: [[Float]] = []

    public init(keepS: Double) {
        self.keepS = keepS
    }

    /// Keeps a frame's features (D). Throws `RollingError` where its time does not come after the one before it.
    public mutating func add(timeS: Double, features frame: [Float]) throws {
        guard timeS.isFinite else { throw RollingError.notATime(timeS) }
        if let lastS = timesS.last, timeS <= lastS {
            throw RollingError.timesMustRise(timeS: timeS, afterS: lastS)
        }
        if let last = features.last, last.count != frame.count {
            throw RollingError.numFeatures(frame.count, expected: last.count)
        }
        timesS.append(timeS)
        features.append(frame)
        // One frame stays from before the kept span: it is on screen where the span begins.
        let numOld = numUpTo(timeS - keepS) - 1
        if numOld > 0 {
            timesS.removeFirst(numOld)
            features.removeFirst(numOld)
        }
    }

    /// The features (D) of the frames on screen at given times; the oldest kept one stands for all before it.
    /// An empty ring has nothing to give and returns an empty array.
    public func at(_ timesS: [Double]) -> [[Float]] {
        if features.isEmpty { return [] }
        return timesS.map { features[max(0, numUpTo($0 + Self.timeToleranceS) - 1)] }
    }

    public mutating func clear() {
        timesS.removeAll()
        features.removeAll()
    }

    /// Frames that are kept.
    public var count: Int { timesS.count }

    /// When the oldest kept frame begins, seconds; nil where there is none.
    public var startS: Double? { timesS.first }

    /// When the newest frame leaves the screen, as far as the frames before it tell, seconds; nil where there is none.
    public var endS: Double? {
        guard let lastS = timesS.last else { return nil }
        let gapS = timesS.count > 1 ? lastS - timesS[timesS.count - 2] : 0
        return lastS + gapS
    }

    /// How many kept frames begin at a time or before it.
    private func numUpTo(_ timeS: Double) -> Int {
        var low = 0
        var high = timesS.count
        while low < high {
            let middle = (low + high) / 2
            if timesS[middle] <= timeS {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }
}

/// Recognition over a stream: each frame is encoded once, elsewhere, and every prediction takes what it needs of the
/// kept features.
///
/// Which features a window takes is decided by time, as for a clip: the T candidate times of the middle view, and for
/// each the frame on screen then. So a window equals the clip of the same interval, and the frame rate does not matter.
public struct RollingRecogniser: Sendable {
    /// Lengths of the windows that are looked at together, seconds: actions are of all lengths.
    public static let defaultWindowsS: [Double] = [1, 2, 4]
    /// How old a window's answer may get before it is looked at again, seconds.
    public static let defaultRefreshS = 0.1
    /// A window weighs by this power of its best action's probability: the one that fits the action is the surest.
    public static let surenessPower = 3.0

    private struct Answer: Sendable {
        /// Of the ring, when the window was looked at, seconds.
        let endS: Double
        let probs: Probs
    }

    public let clip: ClipSpec
    /// Lengths of the windows, rising, seconds.
    public let windowsS: [Double]
    public let refreshS: Double
    /// The kept features.
    public private(set) var ring: FeatureRing
    /// Per window, times (T) from its start, seconds.
    private let offsetsS: [[Double]]
    /// By place in `windowsS`.
    private var answers: [Int: Answer] = [:]

    /// - Parameters:
    ///   - clip: how the model looks at a segment.
    ///   - windowsS: seconds that a prediction sees.
    ///   - refreshS: how old a window's answer may get before it is looked at again; with each prediction at least the
    ///     oldest is. 0 looks at all of them every time.
    ///   - keepS: seconds of features to keep; the longest window unless windows lie further back.
    /// - Throws: `RollingError` where there are no windows, one is not positive, or the clip has a fault.
    public init(
        clip: ClipSpec,
        windowsS: [Double] = [1, 2, 4],
        refreshS: Double = 0.1,
        keepS: Double? = nil
    ) throws {
        if let fault = clip.fault { throw RollingError.clip(fault) }
        let sortedS = windowsS.sorted()
        guard let longestS = sortedS.last, windowsS.allSatisfy({ $0 > 0 && $0 <= 3600 }) else {
            throw RollingError.windows(windowsS)
        }
        var keptS = longestS
        if let keepS, keepS != 0 { keptS = keepS }
        self.clip = clip
        self.windowsS = sortedS
        self.refreshS = refreshS
        // The newest frame's own time on screen comes on top of the longest window.
        self.ring = FeatureRing(keepS: keptS + 1)
        self.offsetsS = sortedS.map { windowTimes(windowS: $0, clip: clip) }
    }

    /// Keeps a frame's features (D). Throws `RollingError` where its time does not come after the one before it.
    public mutating func keep(timeS: Double, features: [Float]) throws {
        try ring.add(timeS: timeS, features: features)
    }

    /// Begins anew: what comes next does not follow what was.
    public mutating func forget() {
        ring.clear()
        answers.removeAll()
    }

    /// The windows that the kept frames fill: place in `windowsS`, and start in seconds.
    ///
    /// - Parameter middleS: nil for windows that end with the newest frame, else all lie around this moment.
    public func filled(middleS: Double? = nil) -> [(place: Int, startS: Double)] {
        guard let ringStartS = ring.startS, let ringEndS = ring.endS else { return [] }
        let slack = 0.5 / Double(clip.numFrames) // half a bin, as a share of the window
        var found: [(place: Int, startS: Double)] = []
        for (place, windowS) in windowsS.enumerated() {
            var startS = ringEndS - windowS
            if let middleS { startS = middleS - windowS / 2 }
            if startS >= ringStartS - slack * windowS && startS + windowS <= ringEndS + slack * windowS {
                found.append((place: place, startS: startS))
            }
        }
        return found
    }

    /// What the windows see.
    ///
    /// - Parameters:
    ///   - middleS: nil for windows that end with the newest frame, else all lie around this moment.
    ///   - classify: the features of one window, (T) arrays of (D), to its logits.
    /// - Returns: the mean over the windows that are filled, each weighed by how sure it is; nil where not even the
    ///   shortest is filled.
    public mutating func probs(
        middleS: Double? = nil,
        classify: ([[Float]]) throws -> Logits
    ) rethrows -> Probs? {
        let windows = filled(middleS: middleS)
        guard !windows.isEmpty, let endS = ring.endS else { return nil }
        let places = windows.map { $0.place }
        let due = middleS == nil ? duePlaces(of: places, endS: endS) : places
        var fresh: [Int: Answer] = [:]
        for window in windows where due.contains(window.place) {
            let features = ring.at(offsetsS[window.place].map { window.startS + $0 })
            let logits = try classify(features)
            let probs = Probs(verb: softmax(logits.verb), noun: softmax(logits.noun))
            fresh[window.place] = Answer(endS: endS, probs: probs)
        }
        // Only now: where one window fails, none of this prediction counts.
        answers.merge(fresh) { _, new in new }
        return weighed(places.compactMap { answers[$0]?.probs })
    }

    /// The windows without an answer or with one that is too old; at least the one with the oldest.
    private func duePlaces(of places: [Int], endS: Double) -> [Int] {
        let latestS = endS - refreshS
        let seenS = places.map { answers[$0]?.endS ?? -Double.infinity }
        let tooOld = places.indices.filter { seenS[$0] <= latestS }.map { places[$0] }
        if !tooOld.isEmpty { return tooOld }
        var oldest = 0
        for at in places.indices where seenS[at] < seenS[oldest] {
            oldest = at
        }
        return [places[oldest]]
    }
}

/// The mean of the windows' probabilities, each weighed by how sure it is.
private func weighed(_ answers: [Probs]) -> Probs {
    let sureness = answers.map { answer -> Float in
        let best = (answer.verb.max() ?? 0) * (answer.noun.max() ?? 0)
        return Float(pow(Double(best), RollingRecogniser.surenessPower))
    }
    let total = sureness.reduce(0, +)
    let weights = sureness.map { $0 / total }
    return Probs(
        verb: weightedSum(answers.map { $0.verb }, weights: weights),
        noun: weightedSum(answers.map { $0.noun }, weights: weights)
    )
}

/// (W) arrays of (C), and (W) weights -> (C).
private func weightedSum(_ rows: [[Float]], weights: [Float]) -> [Float] {
    var sum = [Float](repeating: 0, count: rows.first?.count ?? 0)
    for (row, weight) in zip(rows, weights) {
        for place in sum.indices {
            sum[place] += weight * row[place]
        }
    }
    return sum
}
