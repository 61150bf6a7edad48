import SwiftUI

/// All that can be chosen; kept on the phone.
struct SettingsView: View {
    @Environment(AppModel.self) private var model
    @Environment(\.dismiss) private var dismiss
    var stored = StoredSettings()

    var body: some View {
        NavigationStack {
            Form {
                recognition
                windows
                models
                screen
                Section {
                    NavigationLink("Benchmark") { BenchmarkView() }
                    NavigationLink("About EgoChef") { AboutView() }
                }
            }
            .navigationTitle("Settings")
            .navigationBarTitleDisplayMode(.inline)
            .toolbar {
                ToolbarItem(placement: .confirmationAction) {
                    Button("Done") { dismiss() }
                }
            }
        }
    }

    private var recognition: some View {
        Section {
            ValueSlider(
                title: "Threshold", value: stored.$threshold, range: 0...0.95, step: 0.05,
                text: Percent.text(stored.threshold)
            )
            ValueSlider(
                title: "Smoothing", value: stored.$smoothingS, range: 0...2, step: 0.1,
                text: "\(stored.smoothingS.formatted(.number.precision(.fractionLength(1)))) s"
            )
            Picker("Encode", selection: stored.$encodeEvery) {
                Text("every frame").tag(1)
                Text("every 2nd frame").tag(2)
                Text("every 3rd frame").tag(3)
                Text("every 4th frame").tag(4)
            }
        } header: {
            Text("Recognition")
        } footer: {
            Text("An action is named from the threshold on and uncertain below it. More smoothing is calmer and later.")
        }
    }

    private var windows: some View {
        Section {
            window("1 second", isOn: stored.$hasWindow1, seconds: 1)
            window("2 seconds", isOn: stored.$hasWindow2, seconds: 2)
            window("4 seconds", isOn: stored.$hasWindow4, seconds: 4)
        } header: {
            Text("Windows")
        } footer: {
            Text("How far back a prediction looks. Actions are of all lengths; one window at least stays on.")
        }
    }

    private func window(_ title: String, isOn: Binding<Bool>, seconds: Double) -> some View {
        Toggle(title, isOn: isOn)
            .disabled(stored.windowsS == [seconds])
    }

    private var models: some View {
        Section("Model") {
            NavigationLink {
                ModelsView()
            } label: {
                LabeledContent("Model", value: model.live.pair?.title ?? "none")
            }
            Picker("Compute units", selection: stored.$units) {
                ForEach(ComputeChoice.allCases) { choice in
                    Text(choice.title).tag(choice)
                }
            }
        }
    }

    private var screen: some View {
        Section("Screen") {
            Toggle("Show statistics", isOn: stored.$showsStatistics)
            Toggle("Keep the screen on", isOn: stored.$keepsAwake)
        }
    }
}

/// A slider that says its value.
private struct ValueSlider: View {
    let title: String
    @Binding var value: Double
    let range: ClosedRange<Double>
    let step: Double
    let text: String

    var body: some View {
        VStack(alignment: .leading) {
            LabeledContent(title, value: text)
                .accessibilityHidden(true)
            Slider(value: $value, in: range, step: step) { Text(title) }
                .accessibilityValue(text)
        }
    }
}
