import EgoChefCore
import Foundation

/// A compiled model that says what it is and fits what it says.
struct ModelFile: Equatable, Sendable {
    /// Without its suffix.
    let name: String
    /// Of the `.mlmodelc`.
    let url: URL
    let about: ModelAbout
}

/// An encoder and the head that was exported with it.
struct ModelPair: Identifiable, Equatable, Sendable {
    let encoder: ModelFile
    let head: ModelFile

    var id: String { "\(encoder.name)+\(head.name)" }

    /// The name that both files share, for example `toy` of `toy-encoder` and `toy-head`.
    var title: String {
        let joints = CharacterSet(charactersIn: "-_ ")
        let shared = encoder.name.commonPrefix(with: head.name).trimmingCharacters(in: joints)
        return shared.isEmpty ? encoder.name : shared
    }

    /// For example "efficientnet_lite0, bilstm, fp16".
    var summary: String {
        [encoder.about.encoder, encoder.about.temporal, encoder.about.precision].joined(separator: ", ")
    }

    /// Each encoder with the heads that belong to it.
    static func all(of files: [ModelFile]) -> [ModelPair] {
        let encoders = files.filter { $0.about.part == .encoder }
        let heads = files.filter { $0.about.part == .head }
        return encoders.flatMap { encoder in
            heads.filter { head in
                encoder.about.belongsWith(head.about) && encoder.about.precision == head.about.precision
                    && encoder.about.numFeatures == head.about.numFeatures
            }
            .map { ModelPair(encoder: encoder, head: $0) }
        }
    }
}

/// A file that looked like a model and is not used.
struct LeftOutFile: Identifiable, Equatable, Sendable {
    let name: String
    let reason: String

    var id: String { "\(name): \(reason)" }
}
