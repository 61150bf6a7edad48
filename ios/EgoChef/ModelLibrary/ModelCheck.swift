import CoreML
import CoreVideo
import EgoChefCore
import Foundation

/// Why a file is left out.
struct ModelFault: LocalizedError, Sendable {
    let reason: String

    init(_ reason: String) {
        self.reason = reason
    }

    var errorDescription: String? { reason }
}

/// Whether a model has the inputs and outputs that its metadata promises.
enum ModelCheck {
    /// What a compiled model says of itself, checked.
    static func about(of url: URL) async throws -> ModelAbout {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = .cpuOnly // only to be read: the quickest to load
        let model = try await MLModel.load(contentsOf: url, configuration: configuration)
        return try about(in: model.modelDescription)
    }

    private static func about(in description: MLModelDescription) throws -> ModelAbout {
        let metadata = description.metadata[.creatorDefinedKey] as? [String: String]
        guard let json = metadata?[FeatureNames.metadataKey] else {
            throw ModelFault("It has no EgoChef metadata. Export it with `egochef export --format coreml`.")
        }
        let about = try ModelAbout(json: json)
        switch about.part {
        case .encoder: try checkEncoder(description, about)
        case .head: try checkHead(description, about)
        case .clip:
            throw ModelFault("It is a whole clip model, no streaming pair. Export with `--parts stream`.")
        }
        return about
    }

    private static func checkEncoder(_ description: MLModelDescription, _ about: ModelAbout) throws {
        guard let image = description.inputDescriptionsByName[FeatureNames.image]?.imageConstraint else {
            throw ModelFault("It has no image input `\(FeatureNames.image)`.")
        }
        let size = about.clip.imageSize
        guard image.pixelsWide == size, image.pixelsHigh == size else {
            let found = "\(image.pixelsWide) x \(image.pixelsHigh)"
            throw ModelFault("It takes pictures of \(found), expected \(size) x \(size).")
        }
        try checkOutput(description, FeatureNames.features, count: about.numFeatures)
    }

    private static func checkHead(_ description: MLModelDescription, _ about: ModelAbout) throws {
        let name = FeatureNames.features
        guard let features = description.inputDescriptionsByName[name]?.multiArrayConstraint else {
            throw ModelFault("It has no input `\(name)`.")
        }
        let shape = features.shape.map { $0.intValue }
        guard shape.count == 3, shape[2] == about.numFeatures else {
            throw ModelFault("Its input `\(name)` has shape \(shape), expected 1 x T x \(about.numFeatures).")
        }
        try checkOutput(description, FeatureNames.verb, count: about.verbs.count)
        try checkOutput(description, FeatureNames.noun, count: about.nouns.count)
    }

    /// Not every model tells the shape of its outputs; what comes out is counted when it first runs.
    private static func checkOutput(_ description: MLModelDescription, _ name: String, count: Int) throws {
        guard let output = description.outputDescriptionsByName[name]?.multiArrayConstraint else {
            throw ModelFault("It has no output `\(name)`.")
        }
        guard output.dataType == .float32 else { throw ModelFault("Its output `\(name)` is not of type Float32.") }
        let shape = output.shape.map { $0.intValue }
        guard shape.isEmpty || shape == [1, count] else {
            throw ModelFault("Its output `\(name)` has shape \(shape), expected 1 x \(count).")
        }
    }
}
