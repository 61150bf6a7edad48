import CoreML
import CoreVideo
import EgoChefCore
import Foundation

/// Why a pair of models cannot be run.
enum RunnerFault: LocalizedError {
    case missing(String)
    case count(output: String, found: Int, expected: Int)
    case dataType(String)
    case notFinite(String)

    var errorDescription: String? {
        switch self {
        case .missing(let output):
            return "The model gives no \(output)."
        case .count(let output, let found, let expected):
            return "The model gives \(found) values as \(output), expected \(expected)."
        case .dataType(let output):
            return "The model's \(output) is not of type Float32."
        case .notFinite(let output):
            return "The model's \(output) holds values that are no numbers. Try other compute units."
        }
    }
}

/// An encoder and its head, ready to run. To be used on one queue at a time, which is why it may cross threads.
final class ModelRunner: @unchecked Sendable {
    let pair: ModelPair
    let units: ComputeChoice
    private let encoder: MLModel
    private let head: MLModel

    var about: ModelAbout { pair.encoder.about }

    private init(pair: ModelPair, units: ComputeChoice, encoder: MLModel, head: MLModel) {
        self.pair = pair
        self.units = units
        self.encoder = encoder
        self.head = head
    }

    /// Loads both, which may take seconds, and runs them once: what is described is not always what comes out.
    static func load(_ pair: ModelPair, units: ComputeChoice) async throws -> ModelRunner {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.coreML
        let encoder = try await MLModel.load(contentsOf: pair.encoder.url, configuration: configuration)
        let head = try await MLModel.load(contentsOf: pair.head.url, configuration: configuration)
        let runner = ModelRunner(pair: pair, units: units, encoder: encoder, head: head)
        try runner.warmUp()
        return runner
    }

    /// A 32BGRA picture of the encoder's size to its features (D).
    func encode(_ picture: CVPixelBuffer) throws -> [Float] {
        let input = try MLDictionaryFeatureProvider(dictionary: [
            FeatureNames.image: MLFeatureValue(pixelBuffer: picture),
        ])
        let output = try encoder.prediction(from: input)
        return try ModelRunner.values(output, FeatureNames.features, count: about.numFeatures)
    }

    /// The features of one window, (T) arrays of (D), to logits.
    func classify(_ window: [[Float]]) throws -> Logits {
        let features = MLShapedArray<Float>(scalars: window.joined(), shape: [1, window.count, about.numFeatures])
        let input = try MLDictionaryFeatureProvider(dictionary: [
            FeatureNames.features: MLFeatureValue(multiArray: MLMultiArray(features)),
        ])
        let output = try head.prediction(from: input)
        let verb = try ModelRunner.values(output, FeatureNames.verb, count: about.verbs.count)
        let noun = try ModelRunner.values(output, FeatureNames.noun, count: about.nouns.count)
        return Logits(verb: verb, noun: noun)
    }

    private func warmUp() throws {
        let size = about.clip.imageSize
        let features = try encode(SyntheticPicture.make(size: size, seed: 1))
        _ = try classify(Array(repeating: features, count: about.clip.numFrames))
    }

    private static func values(_ output: any MLFeatureProvider, _ name: String, count: Int) throws -> [Float] {
        guard let array = output.featureValue(for: name)?.multiArrayValue else { throw RunnerFault.missing(name) }
        guard array.dataType == .float32 else { throw RunnerFault.dataType(name) }
        guard array.count == count else {
            throw RunnerFault.count(output: name, found: array.count, expected: count)
        }
        let values = MLShapedArray<Float>(array).scalars
        guard values.allSatisfy({ $0.isFinite }) else { throw RunnerFault.notFinite(name) }
        return values
    }
}
