import EgoChefCore
import SwiftUI

/// The recognised action; a tap shows the five most probable ones.
struct ActionPanel: View {
    /// nil while the windows fill.
    let prediction: Prediction?
    @Binding var isExpanded: Bool
    @Environment(\.accessibilityReduceMotion) var reducesMotion

    var body: some View {
        VStack(spacing: 0) {
            Button {
                withAnimation(reducesMotion ? nil : .snappy) { isExpanded.toggle() }
            } label: {
                summary
                    .frame(maxWidth: .infinity, alignment: .leading)
                    .padding(12)
                    .contentShape(Rectangle())
            }
            .buttonStyle(.plain)
            .accessibilityLabel("Action")
            .accessibilityValue(spoken)
            .accessibilityHint(isExpanded ? "Hides the five most probable" : "Shows the five most probable")
            if isExpanded, let prediction {
                Divider()
                ScrollView {
                    TopFiveView(prediction: prediction)
                        .padding(12)
                }
                .frame(maxHeight: 280)
            }
        }
        .background(.regularMaterial, in: RoundedRectangle(cornerRadius: 16))
    }

    private var summary: some View {
        VStack(alignment: .leading, spacing: 4) {
            HStack(alignment: .firstTextBaseline) {
                Text(title)
                    .font(.title2.bold())
                    .foregroundStyle(prediction?.shown == nil ? .secondary : .primary)
                Spacer()
                if let prediction, prediction.shown != nil {
                    Text(Percent.text(prediction.shownProb))
                        .font(.title3.monospacedDigit())
                }
            }
            if let prediction {
                ViewThatFits(in: .horizontal) {
                    HStack(spacing: 16) { parts(of: prediction) }
                    VStack(alignment: .leading) { parts(of: prediction) }
                }
                .font(.subheadline)
                .foregroundStyle(.secondary)
            }
        }
    }

    @ViewBuilder private func parts(of prediction: Prediction) -> some View {
        if let verb = prediction.verb.first { Text("verb: \(verb.name), \(Percent.text(verb.prob))") }
        if let noun = prediction.noun.first { Text("noun: \(noun.name), \(Percent.text(noun.prob))") }
    }

    private var title: String {
        guard let prediction else { return "Watching" }
        return prediction.shown ?? "uncertain"
    }

    private var spoken: String {
        guard let prediction else { return "Watching, nothing recognised yet" }
        var words = prediction.shown.map { "\($0), \(Percent.text(prediction.shownProb))" } ?? "uncertain"
        if let verb = prediction.verb.first { words += ". Verb: \(verb.name), \(Percent.text(verb.prob))" }
        if let noun = prediction.noun.first { words += ". Noun: \(noun.name), \(Percent.text(noun.prob))" }
        return words
    }
}

/// Probabilities for people.
enum Percent {
    static func text(_ prob: Double) -> String {
        prob.formatted(.percent.precision(.fractionLength(0)))
    }
}
