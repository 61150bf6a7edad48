import SwiftUI

/// How to come to a model where there is none.
struct NoModelView: View {
    @Environment(AppModel.self) private var model
    var stored = StoredSettings()

    var body: some View {
        List {
            Section {
                VStack(alignment: .leading, spacing: 8) {
                    Label("There is no model yet", systemImage: "cube.transparent")
                        .font(.headline)
                    Text("EgoChef runs an encoder and a head that were exported together from a trained checkpoint.")
                }
            }
            Section("Build one into the app") {
                step(1, "On a computer, in EgoChef's folder, run `make demo`. It trains a small model and exports it.")
                step(2, "Copy `outputs/demo/export/*.mlpackage` into `ios/EgoChef/Models`.")
                step(3, "Build the app again in Xcode.")
            }
            Section("Or copy one to this phone") {
                step(1, "Connect the phone to a Mac, choose it in Finder, and open Files.")
                step(2, "Drop both packages, `…-encoder.mlpackage` and `…-head.mlpackage`, on EgoChef.")
                step(3, "Come back and look again.")
            }
            LeftOutSection(files: model.library.leftOut)
            Section {
                Button("Look again", systemImage: "arrow.clockwise") {
                    Task { await model.findModels(chosenID: stored.modelID, units: stored.units) }
                }
                .disabled(model.library.isScanning)
            }
        }
    }

    private func step(_ number: Int, _ text: LocalizedStringKey) -> some View {
        HStack(alignment: .firstTextBaseline) {
            Text("\(number).").monospacedDigit()
            Text(text)
        }
        .accessibilityElement(children: .combine)
    }
}

/// Files that looked like models, and why they are not used.
struct LeftOutSection: View {
    let files: [LeftOutFile]

    var body: some View {
        if !files.isEmpty {
            Section("Left out") {
                ForEach(files) { file in
                    VStack(alignment: .leading, spacing: 2) {
                        Text(file.name)
                        Text(file.reason)
                            .font(.footnote)
                            .foregroundStyle(.secondary)
                    }
                    .accessibilityElement(children: .ignore)
                    .accessibilityLabel(file.name)
                    .accessibilityValue(file.reason)
                }
            }
        }
    }
}
