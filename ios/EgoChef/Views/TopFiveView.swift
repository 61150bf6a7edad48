import EgoChefCore
import SwiftUI

/// The five most probable actions, verbs and nouns.
struct TopFiveView: View {
    let prediction: Prediction

    var body: some View {
        VStack(alignment: .leading, spacing: 12) {
            part("Actions", prediction.action)
            part("Verbs", prediction.verb)
            part("Nouns", prediction.noun)
        }
        .frame(maxWidth: .infinity, alignment: .leading)
    }

    private func part(_ title: String, _ ranked: [RankedClass]) -> some View {
        VStack(alignment: .leading, spacing: 4) {
            Text(title)
                .font(.caption.bold())
                .accessibilityAddTraits(.isHeader)
            ForEach(Array(ranked.enumerated()), id: \.offset) { _, each in
                HStack {
                    Text(each.name)
                    Spacer()
                    Text(Percent.text(each.prob)).monospacedDigit()
                }
                .font(.subheadline)
                .accessibilityElement(children: .ignore)
                .accessibilityLabel(each.name)
                .accessibilityValue(Percent.text(each.prob))
            }
        }
    }
}
