import EgoChefCore
import SwiftUI

/// What the app is, what it does with pictures, and the licences.
struct AboutView: View {
    @Environment(AppModel.self) private var model

    var body: some View {
        List {
            Section("EgoChef") {
                LabeledContent("Version", value: AboutApp.version)
                Text("Names what a pair of hands does in first-person kitchen video: a verb, a noun, and so an action.")
            }
            Section("Privacy") {
                Text("Video never leaves the phone. Nothing is recorded and nothing is sent.")
                Text("Of a video that you choose, a copy is kept until you choose another or start the app again.")
            }
            if let about = model.live.pair?.encoder.about {
                Section("Model") {
                    LabeledContent("Recipe", value: about.recipe)
                    LabeledContent("Encoder", value: about.encoder)
                    LabeledContent("Over time", value: about.temporal)
                    LabeledContent("Parameters", value: about.numParameters.formatted())
                    LabeledContent("Precision", value: about.precision)
                    LabeledContent("Checkpoint", value: String(about.checkpoint.prefix(12)))
                    LabeledContent("Licence", value: about.license)
                }
            }
            Section("Licence") {
                Text("EgoChef is free software under the MIT licence. Copyright (c) 2026 The EgoChef authors.")
            }
        }
        .navigationTitle("About")
    }
}
