import EgoChefCore
import SwiftUI

/// How fast it goes: rates a second, and latencies as median and 95th percentile.
struct StatisticsView: View {
    let stats: LiveStats

    var body: some View {
        VStack(alignment: .leading, spacing: 2) {
            row("source", "\(rate(stats.sourcePerS)) frames/s")
            row("encoded", "\(rate(stats.encodedPerS)) frames/s")
            row("answers", "\(rate(stats.predictionsPerS))/s")
            row("encoder", latency(stats.encoder))
            row("head", latency(stats.head))
            row("delay", latency(stats.delay))
        }
        .font(.caption.monospacedDigit())
        .fixedSize(horizontal: true, vertical: false)
        .padding(8)
        .background(.regularMaterial, in: RoundedRectangle(cornerRadius: 8))
    }

    private func row(_ name: String, _ value: String) -> some View {
        HStack {
            Text(name)
            Spacer(minLength: 12)
            Text(value)
        }
        .accessibilityElement(children: .ignore)
        .accessibilityLabel(name)
        .accessibilityValue(value)
    }

    private func rate(_ perS: Double) -> String {
        perS.formatted(.number.precision(.fractionLength(1)))
    }

    private func latency(_ spread: Spread?) -> String {
        guard let spread else { return "not yet" }
        return "\(Milliseconds.text(spread.medianMs)), 95 %: \(Milliseconds.text(spread.p95Ms))"
    }
}

/// Latencies for people.
enum Milliseconds {
    static func text(_ ms: Double) -> String {
        "\(ms.formatted(.number.precision(.fractionLength(1)))) ms"
    }
}
