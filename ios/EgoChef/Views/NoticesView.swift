import SwiftUI

/// What holds the recognition back.
struct NoticesView: View {
    let notices: [Notice]

    var body: some View {
        ForEach(notices) { notice in
            Label(notice.text, systemImage: notice.symbol)
                .font(.footnote)
                .padding(8)
                .background(.regularMaterial, in: RoundedRectangle(cornerRadius: 8))
                .accessibilityElement(children: .ignore)
                .accessibilityLabel("Notice")
                .accessibilityValue(notice.text)
        }
    }
}
