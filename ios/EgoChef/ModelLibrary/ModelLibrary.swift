import Foundation
import Observation

/// The models in the app and in its Documents folder.
@MainActor
@Observable
final class ModelLibrary {
    private(set) var pairs: [ModelPair] = []
    private(set) var leftOut: [LeftOutFile] = []
    /// Whether it has looked at all.
    private(set) var hasScanned = false
    private(set) var isScanning = false

    /// Looks anew. What is compiled for the first time takes a while.
    func scan() async {
        if isScanning { return }
        isScanning = true
        let found = await ModelScan.run()
        pairs = found.pairs
        leftOut = found.leftOut
        hasScanned = true
        isScanning = false
    }
}

/// One look at all the files, off the main thread.
enum ModelScan {
    struct Found: Sendable {
        var pairs: [ModelPair] = []
        var leftOut: [LeftOutFile] = []
    }

    static func run() async -> Found {
        var found = Found()
        var files: [ModelFile] = []
        var compiledURLs: [URL] = []
        let bundled = Bundle.main.urls(forResourcesWithExtension: "mlmodelc", subdirectory: nil) ?? []
        for url in (bundled + documents()).sorted(by: { $0.lastPathComponent < $1.lastPathComponent }) {
            let fileName = url.lastPathComponent
            do {
                let isPackage = url.pathExtension == "mlpackage"
                let compiled = try await isPackage ? ModelCache.compiled(url) : url
                compiledURLs.append(compiled)
                let about = try await ModelCheck.about(of: compiled)
                let name = url.deletingPathExtension().lastPathComponent
                if files.contains(where: { $0.name == name }) {
                    throw ModelFault("Another file of this name is used.")
                }
                files.append(ModelFile(name: name, url: compiled, about: about))
            } catch {
                found.leftOut.append(LeftOutFile(name: fileName, reason: error.localizedDescription))
            }
        }
        ModelCache.keepOnly(compiledURLs)
        found.pairs = ModelPair.all(of: files)
        let paired = Set(found.pairs.flatMap { [$0.encoder.name, $0.head.name] })
        for file in files where !paired.contains(file.name) {
            let other = file.about.part == .encoder ? "head" : "encoder"
            let reason = "No \(other) of the same export and precision is here."
            found.leftOut.append(LeftOutFile(name: file.url.lastPathComponent, reason: reason))
        }
        return found
    }

    private static func documents() -> [URL] {
        let folder = URL.documentsDirectory
        let entries = try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        return (entries ?? []).filter { ["mlpackage", "mlmodelc"].contains($0.pathExtension) }
    }
}
