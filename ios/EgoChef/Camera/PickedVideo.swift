import CoreTransferable
import Foundation
import UniformTypeIdentifiers

/// A video chosen from Photos.
struct PickedVideo: Transferable, Sendable {
    /// Of our own copy.
    let url: URL

    static var transferRepresentation: some TransferRepresentation {
        FileRepresentation(importedContentType: .movie) { received in
            try PickedVideo(url: TemporaryVideo.keep(received.file))
        }
    }
}

/// The copy of the chosen video: one at a time, gone when another is chosen and when the app starts.
enum TemporaryVideo {
    private static var folder: URL {
        FileManager.default.temporaryDirectory.appending(path: "ChosenVideo", directoryHint: .isDirectory)
    }

    /// Copies a file that may be read only now.
    static func keep(_ url: URL) throws -> URL {
        clear()
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let copy = folder.appending(path: "\(UUID().uuidString)-\(url.lastPathComponent)")
        try FileManager.default.copyItem(at: url, to: copy)
        return copy
    }

    /// Of a file chosen from Files, which lies outside of the app's own folders.
    static func keepScoped(_ url: URL) throws -> URL {
        let isScoped = url.startAccessingSecurityScopedResource()
        defer { if isScoped { url.stopAccessingSecurityScopedResource() } }
        return try keep(url)
    }

    static func clear() {
        try? FileManager.default.removeItem(at: folder)
    }
}
