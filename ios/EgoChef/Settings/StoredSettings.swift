import EgoChefCore
import SwiftUI

/// The settings as they are kept on the phone. A view that has this is drawn again when one changes.
struct StoredSettings: DynamicProperty {
    @AppStorage("threshold") var threshold = 0.2
    @AppStorage("smoothing_s") var smoothingS = 0.1
    @AppStorage("window_1_s") var hasWindow1 = true
    @AppStorage("window_2_s") var hasWindow2 = true
    @AppStorage("window_4_s") var hasWindow4 = true
    @AppStorage("encode_every") var encodeEvery = 1
    @AppStorage("compute_units") var units = ComputeChoice.all
    @AppStorage("model") var modelID = ""
    @AppStorage("shows_statistics") var showsStatistics = true
    @AppStorage("keeps_awake") var keepsAwake = true

    /// Seconds, rising; all of them where none is chosen.
    var windowsS: [Double] {
        let chosen = [(hasWindow1, 1.0), (hasWindow2, 2.0), (hasWindow4, 4.0)].filter { $0.0 }.map { $0.1 }
        return chosen.isEmpty ? RollingRecogniser.defaultWindowsS : chosen
    }

    /// As plain values.
    var live: LiveSettings {
        LiveSettings(
            windowsS: windowsS,
            smoothing: Smoothing(tauS: smoothingS, threshold: threshold),
            encodeEvery: encodeEvery,
            keepsAwake: keepsAwake
        )
    }
}
