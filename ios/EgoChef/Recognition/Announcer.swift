import UIKit

/// Tells VoiceOver's users when the action changes, not more often than they can listen.
@MainActor
struct Announcer {
    /// Seconds between two announcements.
    static let pauseS = 2.0

    private var said: String?
    private var saidAtS = -Double.infinity

    /// To be called with every answer: an action that came too soon is said later, if it is still there.
    mutating func tell(_ shown: String?, nowS: Double) {
        guard let shown, shown != said, nowS - saidAtS >= Announcer.pauseS else { return }
        said = shown
        saidAtS = nowS
        if UIAccessibility.isVoiceOverRunning { UIAccessibility.post(notification: .announcement, argument: shown) }
    }
}
