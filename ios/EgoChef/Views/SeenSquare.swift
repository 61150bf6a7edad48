import SwiftUI

/// The outline of what the model sees, over a picture that fills the view.
struct SeenSquare: View {
    /// Width over height of the picture.
    let aspect: Double
    /// Of the picture's shorter side.
    let share: Double

    var body: some View {
        GeometryReader { geometry in
            let side = SeenSquare.side(in: geometry.size, aspect: aspect, share: share)
            RoundedRectangle(cornerRadius: 12)
                .strokeBorder(.white.opacity(0.6), style: StrokeStyle(lineWidth: 1.5, dash: [8, 6]))
                .frame(width: side, height: side)
                .position(x: geometry.size.width / 2, y: geometry.size.height / 2)
        }
        .accessibilityHidden(true)
        .allowsHitTesting(false)
    }

    nonisolated static func side(in size: CGSize, aspect: Double, share: Double) -> CGFloat {
        let ratio = CGFloat(aspect)
        guard ratio > 0, size.height > 0 else { return 0 }
        let isWider = size.width / size.height > ratio
        let width = isWider ? size.width : size.height * ratio
        return min(width, width / ratio) * CGFloat(share)
    }
}
