import EgoChefCore
import SwiftUI

/// The models of this phone, one of which is used.
struct ModelsView: View {
    @Environment(AppModel.self) private var model
    var stored = StoredSettings()

    var body: some View {
        List {
            Section {
                ForEach(model.library.pairs) { pair in
                    Button { stored.modelID = pair.id } label: { row(pair) }
                        .accessibilityLabel(pair.title)
                        .accessibilityValue(pair.summary)
                        .accessibilityAddTraits(pair.id == model.live.pair?.id ? .isSelected : [])
                }
            } footer: {
                Text("Packages in the app's folder in Files are found too; they are compiled when first seen.")
            }
            LeftOutSection(files: model.library.leftOut)
            Section {
                Button("Look again", systemImage: "arrow.clockwise") {
                    Task { await model.findModels(chosenID: stored.modelID, units: stored.units) }
                }
                .disabled(model.library.isScanning)
            }
        }
        .navigationTitle("Models")
    }

    private func row(_ pair: ModelPair) -> some View {
        HStack {
            VStack(alignment: .leading, spacing: 2) {
                Text(pair.title)
                    .foregroundStyle(Color.primary)
                Text(pair.summary)
                    .font(.footnote)
                    .foregroundStyle(Color.secondary)
                Text("\(pair.encoder.about.verbs.count) verbs, \(pair.encoder.about.nouns.count) nouns")
                    .font(.footnote)
                    .foregroundStyle(Color.secondary)
            }
            Spacer()
            if pair.id == model.live.pair?.id { Image(systemName: "checkmark") }
        }
    }
}
