import SwiftUI

/// The whole screen: looks for models, then recognises; or says how to come to a model.
struct RootView: View {
    @Environment(AppModel.self) private var model
    @Environment(\.scenePhase) private var scenePhase
    @State private var showsSettings = false
    var stored = StoredSettings()

    var body: some View {
        NavigationStack {
            content
                .navigationTitle("EgoChef")
                .navigationBarTitleDisplayMode(.inline)
                .toolbar {
                    ToolbarItem(placement: .topBarTrailing) {
                        Button("Settings", systemImage: "gearshape") { showsSettings = true }
                    }
                }
        }
        .sheet(isPresented: $showsSettings) { SettingsView() }
        .task { await model.findModels(chosenID: stored.modelID, units: stored.units) }
        .onChange(of: scenePhase, initial: true) { _, phase in
            switch phase {
            case .active: model.live.setInFront(true)
            case .background: model.live.setInFront(false)
            default: break // a glance at the control centre stops nothing
            }
        }
        .onChange(of: stored.live, initial: true) { _, settings in model.live.apply(settings) }
        .onChange(of: stored.modelID) { _, chosenID in model.useModel(chosenID: chosenID, units: stored.units) }
        .onChange(of: stored.units) { _, units in model.useModel(chosenID: stored.modelID, units: units) }
    }

    @ViewBuilder private var content: some View {
        if !model.library.hasScanned {
            ProgressView("Looking for models")
        } else if model.library.pairs.isEmpty {
            NoModelView()
        } else {
            LiveView()
        }
    }
}
