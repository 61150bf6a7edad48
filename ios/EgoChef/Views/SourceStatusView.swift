import SwiftUI
import UIKit

/// What stands in the middle while nothing is recognised, and what can be done about it.
struct SourceStatusView: View {
    let live: LiveModel
    let onChooseVideo: () -> Void
    @Environment(\.openURL) var openURL

    var body: some View {
        if case .failed(let reason) = live.models {
            StatusCard(symbol: "exclamationmark.triangle", title: "The model cannot be used", text: reason)
        } else if live.models != .ready {
            progress("Loading the model")
        } else if live.source == .camera && live.access != .granted {
            cameraAccess
        } else {
            source
        }
    }

    @ViewBuilder private var cameraAccess: some View {
        switch live.access {
        case .notAsked:
            StatusCard(
                symbol: "camera",
                title: "EgoChef watches through the camera",
                text: "It names what your hands do. The pictures are looked at on this phone and forgotten at once: "
                    + "nothing is recorded, nothing is sent."
            ) {
                Button("Continue") { Task { await live.askForCamera() } }
                    .buttonStyle(.borderedProminent)
                chooseVideo
            }
        case .denied:
            StatusCard(
                symbol: "camera.badge.ellipsis",
                title: "No access to the camera",
                text: "Allow it in Settings to recognise what the camera sees, or choose a video."
            ) {
                Button("Open Settings") {
                    if let url = URL(string: UIApplication.openSettingsURLString) { openURL(url) }
                }
                .buttonStyle(.borderedProminent)
                chooseVideo
            }
        case .restricted:
            StatusCard(
                symbol: "camera.badge.ellipsis",
                title: "The camera is restricted",
                text: "Screen Time or a profile does not allow it on this phone. A video can be chosen instead."
            ) { chooseVideo }
        case .noCamera, .granted:
            StatusCard(
                symbol: "camera",
                title: "There is no camera here",
                text: "The simulator has none. Choose a video to try the app."
            ) { chooseVideo }
        }
    }

    @ViewBuilder private var source: some View {
        switch live.sourceState {
        case .starting:
            progress("Starting")
        case .interrupted(let reason):
            StatusCard(symbol: "pause.circle", title: "Interrupted", text: reason)
        case .failed(let reason):
            StatusCard(symbol: "exclamationmark.triangle", title: "The source failed", text: reason) {
                Button("Try again") { live.tryAgain() }
                    .buttonStyle(.borderedProminent)
                chooseVideo
            }
        case .ended:
            StatusCard(symbol: "checkmark.circle", title: "The video has ended", text: "") {
                Button("Play again") { live.tryAgain() }
                    .buttonStyle(.borderedProminent)
                chooseVideo
            }
        case .idle, .running:
            EmptyView()
        }
    }

    private var chooseVideo: some View {
        Button("Choose a video", action: onChooseVideo)
            .buttonStyle(.bordered)
    }

    private func progress(_ text: LocalizedStringKey) -> some View {
        ProgressView(text)
            .padding()
            .background(.regularMaterial, in: RoundedRectangle(cornerRadius: 16))
    }
}
