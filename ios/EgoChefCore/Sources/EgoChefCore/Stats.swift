import Foundation

/// How often something happens, on a clock that the caller reads.
public struct RateMeter: Sendable {
    /// Rates are taken over so much time, seconds.
    public static let rateS = 2.0
    /// Ticks that are remembered.
    private static let mostTicks = 1000

    /// Ticks since the beginning.
    public private(set) var count = 0
    private var ticksS: [Double] = []

    public init() {}

    public mutating func tick(atS timeS: Double) {
        count += 1
        ticksS.append(timeS)
        if ticksS.count > Self.mostTicks {
            ticksS.removeFirst(ticksS.count - Self.mostTicks)
        }
    }

    /// Ticks a second over the last two seconds; 0 where fewer than two happened.
    public func perS(nowS: Double) -> Double {
        let recentS = ticksS.filter { $0 >= nowS - Self.rateS }
        guard let firstS = recentS.first, let lastS = recentS.last, recentS.count > 1, lastS > firstS else { return 0 }
        return Double(recentS.count - 1) / (lastS - firstS)
    }
}

/// Of latencies, milliseconds.
public struct Spread: Codable, Equatable, Sendable {
    public let medianMs: Double
    public let p95Ms: Double

    enum CodingKeys: String, CodingKey {
        case medianMs = "median_ms"
        case p95Ms = "p95_ms"
    }

    public init(medianMs: Double, p95Ms: Double) {
        self.medianMs = medianMs
        self.p95Ms = p95Ms
    }

    /// Of latencies in milliseconds, in any order, to two decimals; nil where there are none.
    public init?(ofMs values: [Double]) {
        if values.isEmpty { return nil }
        let sorted = values.sorted()
        self.init(
            medianMs: roundedTo(percentile(sorted, 0.50), digits: 2),
            p95Ms: roundedTo(percentile(sorted, 0.95), digits: 2)
        )
    }
}

/// Latencies: the recent ones for the screen, all for the report.
public struct LatencyStats: Sendable {
    /// Latencies that the shown median and percentile are of.
    public static let numRecent = 300
    /// Kept for the report at the end: nine hours at 30 a second.
    private static let mostKept = 1_000_000

    /// Latencies that were added since the beginning.
    public private(set) var count = 0
    private var valuesMs: [Double] = []
    /// Where the next value goes once so many are kept that the oldest has to make room.
    private var next = 0

    public init() {}

    public mutating func add(ms: Double) {
        count += 1
        if valuesMs.count < Self.mostKept {
            valuesMs.append(ms)
        } else {
            valuesMs[next] = ms
            next = (next + 1) % Self.mostKept
        }
    }

    /// Of the last 300.
    public func recent() -> Spread? {
        let num = valuesMs.count
        let newest = (0..<min(Self.numRecent, num)).map { valuesMs[(next + num - 1 - $0) % num] }
        return Spread(ofMs: newest)
    }

    /// Of all.
    public func overAll() -> Spread? {
        Spread(ofMs: valuesMs)
    }
}

/// Linear between the two nearest values, as numpy's default. There has to be a value.
private func percentile(_ sorted: [Double], _ share: Double) -> Double {
    let at = Double(sorted.count - 1) * share
    let below = Int(at)
    let above = min(below + 1, sorted.count - 1)
    let part = at - Double(below)
    let step = sorted[above] - sorted[below]
    return part >= 0.5 ? sorted[above] - step * (1 - part) : sorted[below] + step * part
}

/// A stretch of time with one label.
public struct TimelinePart: Equatable, Sendable {
    public let startS: Double
    public let stopS: Double
    /// nil: nothing known.
    public let label: String?

    public init(startS: Double, stopS: Double, label: String?) {
        self.startS = startS
        self.stopS = stopS
        self.label = label
    }
}

/// What was shown over the last `keepS` seconds, as parts of one label each.
public struct Timeline: Sendable {
    /// Seconds that are kept.
    public let keepS: Double
    /// In order; a part that reaches into the kept time is there as a whole.
    public private(set) var parts: [TimelinePart] = []

    public init(keepS: Double) {
        self.keepS = keepS
    }

    /// At `timeS` this label (nil: nothing known) is shown, until told otherwise.
    public mutating func add(timeS: Double, label: String?) {
        if let last = parts.last {
            let stopS = max(last.startS, timeS)
            parts[parts.count - 1] = TimelinePart(startS: last.startS, stopS: stopS, label: last.label)
        }
        if parts.isEmpty || parts[parts.count - 1].label != label {
            parts.append(TimelinePart(startS: timeS, stopS: timeS, label: label))
        }
        while let first = parts.first, first.stopS < timeS - keepS {
            parts.removeFirst()
        }
    }
}
