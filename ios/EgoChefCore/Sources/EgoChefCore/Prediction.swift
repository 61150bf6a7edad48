import Foundation

/// A class by name, with its probability.
public struct RankedClass: Codable, Equatable, Sendable {
    public let name: String
    public let prob: Double

    public init(name: String, prob: Double) {
        self.name = name
        self.prob = prob
    }
}

/// The best classes of a moment, best first.
public struct Ranking: Equatable, Sendable {
    public let verb: [RankedClass]
    public let noun: [RankedClass]
    /// Pairs, by the product of verb and noun probability.
    public let action: [RankedClass]

    public init(verb: [RankedClass], noun: [RankedClass], action: [RankedClass]) {
        self.verb = verb
        self.noun = noun
        self.action = action
    }
}

/// What the model sees around a moment of a video.
public struct Prediction: Equatable, Sendable {
    /// The moment it speaks of, on the source's clock, seconds.
    public let timeS: Double
    /// Five best, of the smoothed probabilities.
    public let verb: [RankedClass]
    /// Five best.
    public let noun: [RankedClass]
    /// Five best pairs, by the product of verb and noun probability.
    public let action: [RankedClass]
    /// The action that is named, after hysteresis; nil: uncertain.
    public let shown: String?
    /// Its verb id.
    public let shownVerb: Int?
    /// Its noun id.
    public let shownNoun: Int?
    /// Its probability, 0 where uncertain.
    public let shownProb: Double

    public init(
        timeS: Double,
        verb: [RankedClass],
        noun: [RankedClass],
        action: [RankedClass],
        shown: String?,
        shownVerb: Int?,
        shownNoun: Int?,
        shownProb: Double
    ) {
        self.timeS = timeS
        self.verb = verb
        self.noun = noun
        self.action = action
        self.shown = shown
        self.shownVerb = shownVerb
        self.shownNoun = shownNoun
        self.shownProb = shownProb
    }
}

/// The best verbs, nouns and actions of verb (V) and noun (N) probabilities.
///
/// Actions are pairs of the best verbs and nouns; of equally probable pairs the higher ids come first.
public func rank(_ probs: Probs, verbs: [String], nouns: [String], most: Int = 5) -> Ranking {
    let bestVerbs = topK(probs.verb, most)
    let bestNouns = topK(probs.noun, most)
    var pairs: [(prob: Float, verb: Int, noun: Int)] = []
    for verb in bestVerbs {
        for noun in bestNouns {
            pairs.append((prob: probs.verb[verb] * probs.noun[noun], verb: verb, noun: noun))
        }
    }
    pairs.sort { one, other in
        if one.prob != other.prob { return one.prob > other.prob }
        if one.verb != other.verb { return one.verb > other.verb }
        return one.noun > other.noun
    }
    return Ranking(
        verb: bestVerbs.map { RankedClass(name: verbs[$0], prob: Double(probs.verb[$0])) },
        noun: bestNouns.map { RankedClass(name: nouns[$0], prob: Double(probs.noun[$0])) },
        action: pairs.prefix(max(0, most)).map { pair in
            RankedClass(name: "\(verbs[pair.verb]) \(nouns[pair.noun])", prob: Double(pair.prob))
        }
    )
}
