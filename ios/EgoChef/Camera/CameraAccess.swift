import AVFoundation

/// Whether there is a camera and the person lets the app use it.
enum CameraAccess: Equatable, Sendable {
    case noCamera
    case notAsked
    case granted
    case denied
    /// By parental controls or a profile: the person cannot change it.
    case restricted

    static func now() -> CameraAccess {
        guard Camera.device != nil else { return .noCamera }
        switch AVCaptureDevice.authorizationStatus(for: .video) {
        case .authorized: return .granted
        case .denied: return .denied
        case .restricted: return .restricted
        case .notDetermined: return .notAsked
        @unknown default: return .denied
        }
    }

    /// Has the system ask the person, which it does once.
    static func ask() async -> CameraAccess {
        _ = await AVCaptureDevice.requestAccess(for: .video)
        return now()
    }
}
