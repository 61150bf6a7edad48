import UIKit

/// What the app and the phone call themselves.
enum AboutApp {
    /// For example "0.1.0 (1)".
    static var version: String {
        let info = Bundle.main.infoDictionary
        let version = info?["CFBundleShortVersionString"] as? String ?? "?"
        let build = info?["CFBundleVersion"] as? String ?? "?"
        return "\(version) (\(build))"
    }

    /// For example "iPhone17,3"; on the simulator, the phone that it plays.
    static var deviceModel: String {
        if let played = ProcessInfo.processInfo.environment["SIMULATOR_MODEL_IDENTIFIER"] {
            return "simulator of \(played)"
        }
        var system = utsname()
        uname(&system)
        return withUnsafeBytes(of: &system.machine) { bytes in
            String(decoding: bytes.prefix(while: { $0 != 0 }), as: UTF8.self)
        }
    }

    /// For example "iOS 17.5".
    @MainActor
    static var system: String {
        "\(UIDevice.current.systemName) \(UIDevice.current.systemVersion)"
    }
}
