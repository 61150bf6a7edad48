import Foundation

/// How calm the shown action is.
public struct Smoothing: Codable, Equatable, Sendable {
    /// Probabilities are averaged with weights that fall to 1/e over this time, seconds, 0...60.
    public var tauS: Double
    /// Probability from which an action is named; below it is uncertain. 0...1.
    public var threshold: Double
    /// Another action takes its place only when it is this much more probable. 0...1.
    public var margin: Double
    /// A named action stays until its probability falls below this share of the threshold. 0...1.
    public var hold: Double

    public init(tauS: Double = 0.1, threshold: Double = 0.2, margin: Double = 0.1, hold: Double = 0.6) {
        self.tauS = tauS
        self.threshold = threshold
        self.margin = margin
        self.hold = hold
    }
}

/// From the probabilities of each moment to an action that stays on screen: smoothing, hysteresis, "uncertain".
public struct Smoother: Sendable {
    private struct Pair: Sendable {
        let verb: Int
        let noun: Int
    }

    /// Verb names by id.
    public let verbs: [String]
    /// Noun names by id.
    public let nouns: [String]
    /// May be changed at any time.
    public var settings: Smoothing
    private var lastS: Double?
    private var verb: [Float] = []
    private var noun: [Float] = []
    private var shown: Pair?

    public init(verbs: [String], nouns: [String], settings: Smoothing = Smoothing()) {
        self.verbs = verbs
        self.nouns = nouns
        self.settings = settings
    }

    /// Begins anew: what comes next does not follow what was.
    public mutating func forget() {
        lastS = nil
        verb = []
        noun = []
        shown = nil
    }

    /// Probabilities (V) and (N) of a moment, later than the one before, to what is said of it.
    ///
    /// - Precondition: as many probabilities as there are names, and at least one of each.
    public mutating func update(timeS: Double, probs: Probs) -> Prediction {
        precondition(
            !verbs.isEmpty && !nouns.isEmpty && probs.verb.count == verbs.count && probs.noun.count == nouns.count,
            "expected as many probabilities as names"
        )
        var keep = 0.0
        if let lastS, settings.tauS > 0 {
            keep = exp(-max(0, timeS - lastS) / settings.tauS)
        }
        verb = Smoother.mixed(verb, probs.verb, keep: keep)
        noun = Smoother.mixed(noun, probs.noun, keep: keep)
        lastS = timeS
        shown = decided()
        let ranking = rank(Probs(verb: verb, noun: noun), verbs: verbs, nouns: nouns)
        return Prediction(
            timeS: timeS,
            verb: ranking.verb,
            noun: ranking.noun,
            action: ranking.action,
            shown: shown.map { "\(verbs[$0.verb]) \(nouns[$0.noun])" },
            shownVerb: shown?.verb,
            shownNoun: shown?.noun,
            shownProb: shown.map { prob(of: $0) } ?? 0
        )
    }

    private func decided() -> Pair? {
        let best = Pair(verb: placeOfMost(verb), noun: placeOfMost(noun))
        let bestProb = prob(of: best)
        var staying: Pair?
        if let shown, prob(of: shown) >= settings.hold * settings.threshold {
            staying = shown
        }
        if let staying, bestProb < prob(of: staying) + settings.margin {
            return staying
        }
        if bestProb >= settings.threshold {
            return best
        }
        return staying
    }

    private func prob(of pair: Pair) -> Double {
        Double(verb[pair.verb] * noun[pair.noun])
    }

    private static func mixed(_ old: [Float], _ new: [Float], keep: Double) -> [Float] {
        if keep == 0 { return new }
        let oldShare = Float(keep)
        let newShare = Float(1 - keep)
        return zip(old, new).map { oldShare * $0 + newShare * $1 }
    }
}
