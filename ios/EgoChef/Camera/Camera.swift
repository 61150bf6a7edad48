import AVFoundation

/// The back camera: 720p at 30 frames a second, upright, the newest frame only.
///
/// The session is set up and run on `control`, frames come on `delivery`; what is not constant is touched on `control`
/// alone.
final class Camera: NSObject, @unchecked Sendable {
    static let framesPerS: Int32 = 30

    /// nil on the simulator.
    static var device: AVCaptureDevice? {
        AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: .back)
    }

    let session = AVCaptureSession()
    /// To be followed by one task, for good.
    let states: AsyncStream<SourceState>

    private let tell: AsyncStream<SourceState>.Continuation
    private let onFrame: @Sendable (Frame) -> Void
    private let output = AVCaptureVideoDataOutput()
    private let control = DispatchQueue(label: "org.egochef.camera.control", qos: .userInitiated)
    private let delivery = DispatchQueue(label: "org.egochef.camera.delivery", qos: .userInitiated)
    private var isConfigured = false
    private var isWanted = false
    private var angleDegrees: CGFloat = 90
    private var observers: [NSObjectProtocol] = []

    init(onFrame: @escaping @Sendable (Frame) -> Void) {
        self.onFrame = onFrame
        (states, tell) = AsyncStream.makeStream(of: SourceState.self)
        super.init()
        observe()
    }

    deinit {
        for observer in observers { NotificationCenter.default.removeObserver(observer) }
    }

    func start() {
        control.async {
            self.isWanted = true
            self.run()
        }
    }

    func stop() {
        control.async {
            self.isWanted = false
            if self.session.isRunning { self.session.stopRunning() }
            self.tell.yield(.idle)
        }
    }

    /// Turns the frames so that they stand upright: degrees, as the rotation coordinator gives them.
    func turn(toDegrees degrees: CGFloat) {
        control.async {
            self.angleDegrees = degrees
            self.applyAngle()
        }
    }

    // MARK: On `control`

    private func run() {
        tell.yield(.starting)
        do {
            try configureOnce()
        } catch {
            tell.yield(.failed(error.localizedDescription))
            return
        }
        if !session.isRunning { session.startRunning() }
        if session.isRunning {
            tell.yield(.running)
        } else if session.isInterrupted {
            tell.yield(.interrupted("The camera is in use elsewhere."))
        } else {
            tell.yield(.failed("The camera did not start."))
        }
    }

    private func configureOnce() throws {
        if isConfigured { return }
        guard let device = Camera.device else { throw CameraFault.missing }
        try connect(device)
        try setRate(of: device)
        applyAngle()
        isConfigured = true
    }

    private func connect(_ device: AVCaptureDevice) throws {
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        // A second try begins with what a first one left.
        for input in session.inputs { session.removeInput(input) }
        for output in session.outputs { session.removeOutput(output) }
        if session.canSetSessionPreset(.hd1280x720) { session.sessionPreset = .hd1280x720 }
        let input = try AVCaptureDeviceInput(device: device)
        guard session.canAddInput(input) else { throw CameraFault.refused("its input") }
        session.addInput(input)
        output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA]
        output.alwaysDiscardsLateVideoFrames = true
        output.setSampleBufferDelegate(self, queue: delivery)
        guard session.canAddOutput(output) else { throw CameraFault.refused("its pictures") }
        session.addOutput(output)
        if session.isMultitaskingCameraAccessSupported { session.isMultitaskingCameraAccessEnabled = true }
    }

    /// After the session is put together, which chooses the camera's format.
    private func setRate(of device: AVCaptureDevice) throws {
        let wanted = Double(Camera.framesPerS)
        let ranges = device.activeFormat.videoSupportedFrameRateRanges
        guard ranges.contains(where: { $0.minFrameRate <= wanted && wanted <= $0.maxFrameRate }) else { return }
        try device.lockForConfiguration()
        device.activeVideoMinFrameDuration = CMTime(value: 1, timescale: Camera.framesPerS)
        device.activeVideoMaxFrameDuration = CMTime(value: 1, timescale: Camera.framesPerS)
        device.unlockForConfiguration()
    }

    private func applyAngle() {
        guard let connection = output.connection(with: .video) else { return }
        if connection.isVideoRotationAngleSupported(angleDegrees) { connection.videoRotationAngle = angleDegrees }
    }

    // MARK: Interruptions and faults

    private func observe() {
        follow(AVCaptureSession.wasInterruptedNotification) { camera, note in
            let reason = (note.userInfo?[AVCaptureSessionInterruptionReasonKey] as? Int)
                .flatMap(AVCaptureSession.InterruptionReason.init(rawValue:))
            camera.tell.yield(.interrupted(Camera.text(of: reason)))
        }
        follow(AVCaptureSession.interruptionEndedNotification) { camera, _ in
            camera.control.async {
                if camera.isWanted { camera.run() }
            }
        }
        follow(AVCaptureSession.runtimeErrorNotification) { camera, note in
            let error = note.userInfo?[AVCaptureSessionErrorKey] as? AVError
            let isReset = error?.code == .mediaServicesWereReset
            let reason = error?.localizedDescription ?? "The camera stopped."
            camera.control.async {
                // After a reset of the media services all is well but for the session, which has stopped.
                if isReset && camera.isWanted {
                    camera.run()
                } else {
                    camera.tell.yield(.failed(reason))
                }
            }
        }
    }

    private func follow(_ name: Notification.Name, _ act: @escaping @Sendable (Camera, Notification) -> Void) {
        let observer = NotificationCenter.default.addObserver(forName: name, object: session, queue: nil) {
            [weak self] note in
            if let self { act(self, note) }
        }
        observers.append(observer)
    }

    private static func text(of reason: AVCaptureSession.InterruptionReason?) -> String {
        switch reason {
        case .videoDeviceInUseByAnotherClient, .audioDeviceInUseByAnotherClient:
            return "Another app uses the camera."
        case .videoDeviceNotAvailableWithMultipleForegroundApps:
            return "The camera is not to be had beside other apps. Show EgoChef on the whole screen."
        case .videoDeviceNotAvailableDueToSystemPressure:
            return "The camera was stopped because the phone is too hot."
        case .videoDeviceNotAvailableInBackground:
            return "The camera rests while EgoChef is in the background."
        default:
            return "The camera is interrupted."
        }
    }
}

extension Camera: AVCaptureVideoDataOutputSampleBufferDelegate {
    func captureOutput(
        _ output: AVCaptureOutput,
        didOutput sampleBuffer: CMSampleBuffer,
        from connection: AVCaptureConnection
    ) {
        guard let buffer = CMSampleBufferGetImageBuffer(sampleBuffer) else { return }
        // Without sound, a session's clock is the host's, which CACurrentMediaTime reads too.
        let timeS = CMSampleBufferGetPresentationTimeStamp(sampleBuffer).seconds
        onFrame(Frame(buffer: buffer, timeS: timeS, capturedAtS: timeS))
    }
}

/// Why the camera cannot be used.
enum CameraFault: LocalizedError {
    case missing
    case refused(String)

    var errorDescription: String? {
        switch self {
        case .missing: return "There is no back camera."
        case .refused(let what): return "The camera does not give \(what)."
        }
    }
}
