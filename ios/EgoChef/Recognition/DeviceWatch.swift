import Foundation
import Observation

/// How warm the phone is and whether it saves power.
@MainActor
@Observable
final class DeviceWatch {
    private(set) var thermal = ProcessInfo.processInfo.thermalState
    private(set) var isLowPower = ProcessInfo.processInfo.isLowPowerModeEnabled
    /// Called after a change.
    @ObservationIgnored var onChange: (@MainActor () -> Void)?
    @ObservationIgnored private var observers: [any NSObjectProtocol] = []

    init() {
        let names = [ProcessInfo.thermalStateDidChangeNotification, Notification.Name.NSProcessInfoPowerStateDidChange]
        for name in names {
            let observer = NotificationCenter.default.addObserver(forName: name, object: nil, queue: nil) {
                [weak self] _ in
                Task { @MainActor [weak self] in self?.refresh() }
            }
            observers.append(observer)
        }
    }

    private func refresh() {
        thermal = ProcessInfo.processInfo.thermalState
        isLowPower = ProcessInfo.processInfo.isLowPowerModeEnabled
        onChange?()
    }
}

extension ProcessInfo.ThermalState {
    /// For people and reports.
    var text: String {
        switch self {
        case .nominal: return "nominal"
        case .fair: return "fair"
        case .serious: return "serious"
        case .critical: return "critical"
        @unknown default: return "unknown"
        }
    }
}
