import CoreML
import CryptoKit
import Foundation

/// Packages of the Documents folder, compiled on the phone. What was compiled once is kept, by its contents.
enum ModelCache {
    private static func cacheFolder() throws -> URL {
        let support = try FileManager.default.url(
            for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true
        )
        var folder = support.appending(path: "CompiledModels", directoryHint: .isDirectory)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        // It can be made again at any time: no matter for a backup.
        var values = URLResourceValues()
        values.isExcludedFromBackup = true
        try folder.setResourceValues(values)
        return folder
    }

    /// The compiled form of an `.mlpackage`.
    static func compiled(_ package: URL) async throws -> URL {
        let kept = try cacheFolder().appending(path: keptName(of: package), directoryHint: .isDirectory)
        if FileManager.default.fileExists(atPath: kept.path) { return kept }
        let made = try await MLModel.compileModel(at: package)
        try FileManager.default.moveItem(at: made, to: kept)
        return kept
    }

    /// Removes what belongs to none of these compiled models.
    static func keepOnly(_ urls: [URL]) {
        guard let folder = try? cacheFolder(),
            let entries = try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        else { return }
        let kept = Set(urls.map { $0.lastPathComponent })
        for entry in entries where !kept.contains(entry.lastPathComponent) {
            try? FileManager.default.removeItem(at: entry)
        }
    }

    /// By name and contents, so that a changed package is compiled anew.
    private static func keptName(of package: URL) throws -> String {
        let relative = try FileManager.default.subpathsOfDirectory(atPath: package.path).sorted()
        var hash = SHA256()
        for path in relative {
            let file = package.appending(path: path)
            var isFolder: ObjCBool = false
            let isThere = FileManager.default.fileExists(atPath: file.path, isDirectory: &isFolder)
            if !isThere || isFolder.boolValue { continue }
            hash.update(data: Data(path.utf8))
            try hash.update(data: Data(contentsOf: file, options: .mappedIfSafe))
        }
        let digest = hash.finalize().map { String(format: "%02x", $0) }.joined()
        return "\(package.deletingPathExtension().lastPathComponent)-\(digest.prefix(16)).mlmodelc"
    }
}
