import EgoChefCore
import SwiftUI

/// What was recognised over the last minute, now at the right.
struct TimelineStrip: View {
    let timeline: EgoChefCore.Timeline
    /// On the timeline's clock, seconds.
    let nowS: Double
    @ScaledMetric(relativeTo: .caption2) var height: CGFloat = 22

    var body: some View {
        Canvas { [timeline, nowS] context, size in
            for part in timeline.parts {
                guard let label = part.label else { continue }
                let span = TimelineStrip.span(of: part, nowS: nowS, keepS: timeline.keepS, width: size.width)
                let box = CGRect(x: span.left, y: 0, width: span.right - span.left, height: size.height)
                context.fill(Path(box), with: .color(TimelineStrip.colour(of: label)))
                let text = context.resolve(Text(label).font(.caption2).foregroundStyle(.white))
                if text.measure(in: size).width + 6 <= box.width {
                    context.draw(text, at: CGPoint(x: box.midX, y: box.midY))
                }
            }
        }
        .frame(height: height)
        .background(.regularMaterial)
        .clipShape(RoundedRectangle(cornerRadius: 6))
        .accessibilityElement()
        .accessibilityLabel("Last minute")
        .accessibilityValue(spoken)
    }

    /// Where a part lies, in points from the left.
    nonisolated static func span(
        of part: TimelinePart, nowS: Double, keepS: Double, width: CGFloat
    ) -> (left: CGFloat, right: CGFloat) {
        let startS = nowS - keepS
        let left = max(0, CGFloat((part.startS - startS) / keepS) * width)
        let right = min(width, CGFloat((part.stopS - startS) / keepS) * width)
        return (left, max(left, right))
    }

    /// The same for the same action, at every start of the app; dark enough for white letters.
    nonisolated static func colour(of label: String) -> Color {
        let number = label.unicodeScalars.reduce(UInt32(7)) { $0 &* 31 &+ $1.value }
        return Color(hue: Double(number % 360) / 360, saturation: 0.6, brightness: 0.45)
    }

    private var spoken: String {
        let named = timeline.parts.suffix(8).compactMap { part -> String? in
            guard let label = part.label else { return nil }
            return "\(label), \(Int((part.stopS - part.startS).rounded())) seconds"
        }
        return named.isEmpty ? "nothing recognised" : named.joined(separator: "; ")
    }
}
