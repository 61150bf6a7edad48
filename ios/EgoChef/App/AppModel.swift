import Foundation
import Observation

/// What lives as long as the app: the models on this phone, the state of the phone, and the recognition.
@MainActor
@Observable
final class AppModel {
    let library = ModelLibrary()
    let device: DeviceWatch
    let live: LiveModel

    init() {
        TemporaryVideo.clear()
        let device = DeviceWatch()
        self.device = device
        live = LiveModel(device: device)
    }

    /// Looks for models and loads the chosen one, or the first where the chosen one is gone.
    func findModels(chosenID: String, units: ComputeChoice) async {
        await library.scan()
        useModel(chosenID: chosenID, units: units)
    }

    /// Loads the chosen pair of models, if it is not there already.
    func useModel(chosenID: String, units: ComputeChoice) {
        let pair = library.pairs.first { $0.id == chosenID } ?? library.pairs.first
        live.use(pair, units: units)
    }
}
