import AVFoundation
import SwiftUI

/// The picture of a video file.
struct VideoPreview: UIViewRepresentable {
    let layer: AVSampleBufferDisplayLayer

    func makeUIView(context: Context) -> VideoPreviewView {
        VideoPreviewView(showing: layer)
    }

    func updateUIView(_ view: VideoPreviewView, context: Context) {}
}

final class VideoPreviewView: UIView {
    private let shown: CALayer

    init(showing shown: CALayer) {
        self.shown = shown
        super.init(frame: .zero)
        clipsToBounds = true
        layer.addSublayer(shown)
    }

    @available(*, unavailable)
    required init?(coder: NSCoder) {
        fatalError("not made from a nib")
    }

    override func layoutSubviews() {
        super.layoutSubviews()
        CATransaction.begin()
        CATransaction.setDisableActions(true)
        shown.frame = bounds
        CATransaction.commit()
    }
}
