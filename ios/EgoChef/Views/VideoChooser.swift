import PhotosUI
import SwiftUI
import UniformTypeIdentifiers

/// Lets the person choose a video from Photos or Files.
struct VideoChooser: ViewModifier {
    @Binding var choosesPhoto: Bool
    @Binding var choosesFile: Bool
    /// Called with our own copy of it.
    let onChosen: @MainActor (URL) -> Void

    @State private var photo: PhotosPickerItem?
    @State private var fault: String?

    init(choosesPhoto: Binding<Bool>, choosesFile: Binding<Bool>, onChosen: @escaping @MainActor (URL) -> Void) {
        _choosesPhoto = choosesPhoto
        _choosesFile = choosesFile
        self.onChosen = onChosen
    }

    func body(content: Content) -> some View {
        content
            .photosPicker(isPresented: $choosesPhoto, selection: $photo, matching: .videos)
            .fileImporter(isPresented: $choosesFile, allowedContentTypes: [.movie]) { result in
                switch result {
                case .success(let url): takeFile(url)
                case .failure(let error): fault = error.localizedDescription
                }
            }
            .onChange(of: photo) { _, item in
                guard let item else { return }
                photo = nil
                takePhoto(item)
            }
            .alert("The video cannot be used", isPresented: hasFault) {
                Button("OK", role: .cancel) {}
            } message: {
                Text(fault ?? "")
            }
    }

    private var hasFault: Binding<Bool> {
        Binding(get: { fault != nil }, set: { if !$0 { fault = nil } })
    }

    private func takePhoto(_ item: PhotosPickerItem) {
        Task {
            do {
                if let picked = try await item.loadTransferable(type: PickedVideo.self) {
                    onChosen(picked.url)
                } else {
                    fault = "Photos gave no video."
                }
            } catch {
                fault = error.localizedDescription
            }
        }
    }

    private func takeFile(_ url: URL) {
        Task {
            do {
                // A large file takes a while to copy.
                let copy = try await Task.detached { try TemporaryVideo.keepScoped(url) }.value
                onChosen(copy)
            } catch {
                fault = error.localizedDescription
            }
        }
    }
}
