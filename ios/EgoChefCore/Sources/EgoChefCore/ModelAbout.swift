import Foundation

/// Names of inputs, outputs and metadata in the exported Core ML packages.
public enum FeatureNames {
    /// Input of the encoder: an RGB image of S x S pixels.
    public static let image = "image"
    /// Output of the encoder, (1, D); input of the head, (1, T, D).
    public static let features = "features"
    /// Output of the head: logits, (1, V).
    public static let verb = "verb"
    /// Output of the head: logits, (1, N).
    public static let noun = "noun"
    /// Input of a whole recogniser, (1, T, 3, S, S).
    public static let frames = "frames"
    /// Output of a whole recogniser: probabilities, (1, V).
    public static let verbProbs = "verb_probs"
    /// Output of a whole recogniser: probabilities, (1, N).
    public static let nounProbs = "noun_probs"
    /// Key of the metadata under which the JSON of `ModelAbout` stands.
    public static let metadataKey = "egochef"
}

/// What a package holds.
public enum ModelPart: String, Codable, Sendable {
    /// A frame to its features.
    case encoder
    /// The features of T frames to verb and noun logits.
    case head
    /// Both in one: T frames to probabilities.
    case clip
}

/// Metadata that cannot be used.
public struct ModelAboutError: LocalizedError, Equatable, Sendable {
    /// What is wrong and what was expected.
    public let message: String

    public init(_ message: String) {
        self.message = message
    }

    public var errorDescription: String? { message }
}

/// What a package says of itself.
public struct ModelAbout: Codable, Equatable, Sendable {
    /// Version of this metadata; 1.
    public let format: Int
    public let part: ModelPart
    /// "fp16" or "int8".
    public let precision: String
    /// SHA-256 of the checkpoint, hexadecimal.
    public let checkpoint: String
    /// Name of the training recipe.
    public let recipe: String
    public let encoder: String
    public let temporal: String
    /// D, features of a frame.
    public let numFeatures: Int
    /// Of the whole recogniser.
    public let numParameters: Int
    public let license: String
    public let clip: ClipSpec
    /// Verb names by id.
    public let verbs: [String]
    /// Noun names by id.
    public let nouns: [String]

    enum CodingKeys: String, CodingKey {
        case format
        case part
        case precision
        case checkpoint
        case recipe
        case encoder
        case temporal
        case numFeatures = "num_features"
        case numParameters = "num_parameters"
        case license
        case clip
        case verbs
        case nouns
    }

    /// Reads the JSON of a package's metadata. Throws `ModelAboutError`.
    public init(json: String) throws {
        self = try ModelAbout.decoded(Data(json.utf8))
        if let wrong = fault {
            throw ModelAboutError("the model's metadata: \(wrong)")
        }
    }

    /// For people, for example `open drawer`.
    public func actionName(verb: Int, noun: Int) -> String {
        "\(verbs[verb]) \(nouns[noun])"
    }

    /// Whether an encoder and a head were written together.
    public func belongsWith(_ other: ModelAbout) -> Bool {
        checkpoint == other.checkpoint && clip == other.clip && verbs == other.verbs && nouns == other.nouns
    }

    private var fault: String? {
        for (name, value) in [("num_features", numFeatures), ("num_parameters", numParameters)] where value < 1 {
            return "\(name) is \(value), expected at least 1"
        }
        for (name, names) in [("verbs", verbs), ("nouns", nouns)] where names.isEmpty {
            return "\(name) is empty, expected at least one name"
        }
        return clip.fault
    }

    private static func decoded(_ data: Data) throws -> ModelAbout {
        let decoder = JSONDecoder()
        do {
            // Another format may have other keys, so that its number is looked at alone and first.
            let format = try decoder.decode(FormatOnly.self, from: data).format
            if format != 1 {
                throw ModelAboutError("the model's metadata has format \(format), expected 1: export the model again")
            }
            return try decoder.decode(ModelAbout.self, from: data)
        } catch let error as DecodingError {
            throw ModelAboutError("the model's metadata: \(explained(error))")
        }
    }

    private static func explained(_ error: DecodingError) -> String {
        switch error {
        case .keyNotFound(let key, let context):
            return "\(dotted(context.codingPath + [key])) is missing"
        case .typeMismatch(let type, let context), .valueNotFound(let type, let context):
            return "\(dotted(context.codingPath)) is of another kind, expected \(type)"
        case .dataCorrupted(let context) where !context.codingPath.isEmpty:
            return "\(dotted(context.codingPath)) has a value that is not known, expected one of this format"
        default:
            return "it is not readable, expected a JSON object"
        }
    }

    private static func dotted(_ path: [any CodingKey]) -> String {
        path.isEmpty ? "it" : path.map { $0.stringValue }.joined(separator: ".")
    }
}

private struct FormatOnly: Decodable {
    let format: Int
}
