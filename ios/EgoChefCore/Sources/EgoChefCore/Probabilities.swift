import Foundation

/// What the head says of a window, before softmax.
public struct Logits: Equatable, Sendable {
    /// (V).
    public let verb: [Float]
    /// (N).
    public let noun: [Float]

    public init(verb: [Float], noun: [Float]) {
        self.verb = verb
        self.noun = noun
    }
}

/// Verb and noun probabilities.
public struct Probs: Equatable, Sendable {
    /// (V).
    public let verb: [Float]
    /// (N).
    public let noun: [Float]

    public init(verb: [Float], noun: [Float]) {
        self.verb = verb
        self.noun = noun
    }
}

/// Probabilities of logits, (C) -> (C); stable for logits of any size.
public func softmax(_ logits: [Float]) -> [Float] {
    guard let most = logits.max() else { return [] }
    let powers = logits.map { exp(Double($0) - Double(most)) }
    let total = powers.reduce(0, +)
    return powers.map { Float($0 / total) }
}

/// The places of the k largest values, best first; of equal ones the lower place comes first.
public func topK(_ probs: [Float], _ k: Int) -> [Int] {
    let places = probs.indices.sorted { one, other in
        probs[one] == probs[other] ? one < other : probs[one] > probs[other]
    }
    return Array(places.prefix(max(0, k)))
}

/// The place of the largest value, the lowest of equal ones. There has to be one.
func placeOfMost(_ values: [Float]) -> Int {
    var best = 0
    for place in values.indices where values[place] > values[best] {
        best = place
    }
    return best
}

/// The decimal with so many digits that is nearest to the exact value, as Python's `round`.
/// Scaling, rounding and scaling back would round 2.675, which is a little less than that, up.
func roundedTo(_ value: Double, digits: Int) -> Double {
    Double(String(format: "%.\(digits)f", value)) ?? value
}
