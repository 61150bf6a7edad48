import EgoChefCore
import SwiftUI

/// How fast the chosen model is on this phone.
struct BenchmarkView: View {
    @Environment(AppModel.self) private var model
    @State private var benchmark = BenchmarkModel()
    @State private var numRounds = 100
    var stored = StoredSettings()

    var body: some View {
        List {
            setup
            if let fault = benchmark.fault {
                Section { Label(fault, systemImage: "exclamationmark.triangle") }
            }
            if let report = benchmark.report { results(report) }
        }
        .navigationTitle("Benchmark")
        .onAppear { model.live.setMeasuring(true) }
        .onDisappear {
            benchmark.cancel()
            model.live.setMeasuring(false)
        }
    }

    private var setup: some View {
        Section {
            LabeledContent("Model", value: model.live.pair?.title ?? "none")
            LabeledContent("Compute units", value: stored.units.title)
            Picker("Frames", selection: $numRounds) {
                ForEach([100, 300, 1000], id: \.self) { number in
                    Text(number.formatted()).tag(number)
                }
            }
            .disabled(benchmark.isRunning)
            if benchmark.isRunning {
                ProgressView("Measuring", value: benchmark.progress)
                    .accessibilityValue(Percent.text(benchmark.progress))
            } else if let pair = model.live.pair {
                Button("Measure", systemImage: "stopwatch") {
                    benchmark.start(pair, units: stored.units, numRounds: numRounds)
                }
            }
        } footer: {
            Text("Pictures of noise, one after the other; the live recognition rests meanwhile. "
                + "The first rounds are not counted.")
        }
    }

    @ViewBuilder private func results(_ report: BenchmarkReport) -> some View {
        Section("One frame") {
            LabeledContent("Encoder, median", value: Milliseconds.text(report.encoder.medianMs))
            LabeledContent("Encoder, 95 %", value: Milliseconds.text(report.encoder.p95Ms))
            LabeledContent("Head, median", value: Milliseconds.text(report.head.medianMs))
            LabeledContent("Head, 95 %", value: Milliseconds.text(report.head.p95Ms))
            LabeledContent("Frames a second", value: report.framesPerS.formatted(.number.precision(.fractionLength(1))))
        }
        Section("Conditions") {
            LabeledContent("Phone", value: report.deviceModel)
            LabeledContent("System", value: report.system)
            LabeledContent("Precision", value: report.model.precision)
            LabeledContent("Thermal state before", value: report.thermalBefore)
            LabeledContent("Thermal state after", value: report.thermalAfter)
        }
        if let file = benchmark.file {
            Section {
                ShareLink(item: file, preview: SharePreview("EgoChef benchmark")) {
                    Label("Export as JSON", systemImage: "square.and.arrow.up")
                }
            }
        }
    }
}
