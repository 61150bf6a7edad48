import EgoChefCore
import SwiftUI

/// The picture, and over it what is recognised and how it goes.
struct LiveView: View {
    @Environment(AppModel.self) private var model
    @State private var isExpanded = false
    @State private var choosesPhoto = false
    @State private var choosesFile = false
    var stored = StoredSettings()

    var body: some View {
        ZStack {
            Color.black
            LivePicture(live: model.live)
        }
        .ignoresSafeArea()
        .overlay { SourceStatusView(live: model.live, onChooseVideo: { choosesPhoto = true }) }
        .safeAreaInset(edge: .top, spacing: 0) { top }
        .safeAreaInset(edge: .bottom, spacing: 0) { bottom }
        .toolbarBackground(.visible, for: .navigationBar)
        .toolbar {
            ToolbarItem(placement: .topBarLeading) { sourceMenu }
        }
        .modifier(VideoChooser(choosesPhoto: $choosesPhoto, choosesFile: $choosesFile) { url in
            model.live.show(.file(url))
        })
    }

    private var top: some View {
        VStack(alignment: .leading, spacing: 8) {
            NoticesView(notices: model.live.notices)
            if stored.showsStatistics && model.live.sourceState == .running {
                StatisticsView(stats: model.live.stats)
            }
        }
        .frame(maxWidth: .infinity, alignment: .leading)
        .padding(.horizontal)
        .padding(.top, 8)
    }

    @ViewBuilder private var bottom: some View {
        if model.live.sourceState == .running {
            VStack(spacing: 8) {
                ActionPanel(prediction: model.live.prediction, isExpanded: $isExpanded)
                TimelineStrip(timeline: model.live.timeline, nowS: model.live.nowS)
            }
            .padding(.horizontal)
            .padding(.bottom, 8)
        }
    }

    private var sourceMenu: some View {
        Menu("Source", systemImage: "video") {
            if model.live.access != .noCamera {
                Button("Camera", systemImage: "camera") { model.live.show(.camera) }
            }
            Button("Video from Photos", systemImage: "photo.on.rectangle") { choosesPhoto = true }
            Button("Video from Files", systemImage: "folder") { choosesFile = true }
        }
    }
}

/// What the source shows, with the part that the model sees.
private struct LivePicture: View {
    let live: LiveModel

    var body: some View {
        ZStack {
            switch live.source {
            case .camera:
                if live.access == .granted {
                    CameraPreview(camera: live.camera, isRunning: live.sourceState == .running)
                        .accessibilityElement()
                        .accessibilityLabel("Camera picture")
                }
            case .file:
                VideoPreview(layer: live.video.layer)
                    .accessibilityElement()
                    .accessibilityLabel("Video picture")
            }
            if let clip = live.pair?.encoder.about.clip, live.sourceState == .running {
                SeenSquare(aspect: live.aspect, share: Double(clip.imageSize) / Double(clip.resizeSize))
            }
        }
    }
}
