import Foundation

/// A line that tells what holds the recognition back.
struct Notice: Identifiable, Equatable {
    /// An SF Symbol.
    let symbol: String
    let text: String

    var id: String { text }
}

extension LiveModel {
    var notices: [Notice] {
        var notices: [Notice] = []
        switch device.thermal {
        case .serious:
            let text = "The phone is hot: every second frame is left out."
            notices.append(Notice(symbol: "thermometer.sun.fill", text: text))
        case .critical:
            let text = "The phone is too hot. Paused until it cools down."
            notices.append(Notice(symbol: "thermometer.sun.fill", text: text))
        default:
            break
        }
        if device.isLowPower {
            notices.append(Notice(symbol: "bolt.slash.fill", text: "Low Power Mode is on: recognition is slower."))
        }
        if isTooSlow {
            let text = "Frames come too rarely for the shortest window. Choose longer windows or encode more frames."
            notices.append(Notice(symbol: "tortoise.fill", text: text))
        }
        if let fault { notices.append(Notice(symbol: "exclamationmark.triangle.fill", text: fault)) }
        return notices
    }
}
