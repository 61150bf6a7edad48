import AVFoundation
import SwiftUI

/// The camera's picture, upright however the phone is held. It also tells the camera how to turn its frames.
struct CameraPreview: UIViewRepresentable {
    let camera: Camera
    /// The picture can be turned only once the session runs.
    let isRunning: Bool

    func makeUIView(context: Context) -> CameraPreviewView {
        let view = CameraPreviewView()
        view.show(camera)
        return view
    }

    func updateUIView(_ view: CameraPreviewView, context: Context) {
        if isRunning { view.turn() }
    }
}

final class CameraPreviewView: UIView {
    private var camera: Camera?
    private var coordinator: AVCaptureDevice.RotationCoordinator?
    private var observations: [NSKeyValueObservation] = []
    /// What the camera was told last.
    private var toldDegrees: CGFloat?

    override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }

    private var previewLayer: AVCaptureVideoPreviewLayer? { layer as? AVCaptureVideoPreviewLayer }

    func show(_ camera: Camera) {
        self.camera = camera
        previewLayer?.session = camera.session
        previewLayer?.videoGravity = .resizeAspectFill
        guard let device = Camera.device else { return }
        let coordinator = AVCaptureDevice.RotationCoordinator(device: device, previewLayer: previewLayer)
        self.coordinator = coordinator
        observations = [
            coordinator.observe(\.videoRotationAngleForHorizonLevelPreview) { [weak self] _, _ in
                Task { @MainActor [weak self] in self?.turn() }
            },
            coordinator.observe(\.videoRotationAngleForHorizonLevelCapture) { [weak self] _, _ in
                Task { @MainActor [weak self] in self?.turn() }
            },
        ]
        turn()
    }

    func turn() {
        guard let coordinator else { return }
        let captured = coordinator.videoRotationAngleForHorizonLevelCapture
        if captured != toldDegrees {
            toldDegrees = captured
            camera?.turn(toDegrees: captured)
        }
        let shown = coordinator.videoRotationAngleForHorizonLevelPreview
        guard let connection = previewLayer?.connection, connection.videoRotationAngle != shown else { return }
        if connection.isVideoRotationAngleSupported(shown) { connection.videoRotationAngle = shown }
    }
}
