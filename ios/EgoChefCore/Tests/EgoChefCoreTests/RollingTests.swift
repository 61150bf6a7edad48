import EgoChefCore
import Foundation
import XCTest

/// What the ring and the rolling recogniser do, apart from golden vectors.
final class RollingTests: XCTestCase {
    private struct Broken: Error {}

    private let clip = ClipSpec(numFrames: 4, imageSize: 64, resizeSize: 64)

    /// As sure of the first verb and noun as the last frame's first feature says.
    private func logits(_ features: [[Float]]) -> Logits {
        let first = features[features.count - 1][0]
        return Logits(verb: [first, 0], noun: [first, 0, 0])
    }

    func testTheRingGivesTheFrameOnScreen() throws {
        var ring = FeatureRing(keepS: 10)
        for number in 0..<5 {
            try ring.add(timeS: Double(number), features: [Float(number)])
        }
        // 0.5 ms before a frame counts as the frame; before the first one there is only the first one.
        XCTAssertEqual(ring.at([-7, 0, 0.9995, 0.9999, 1, 1.5, 99]), [[0], [0], [1], [1], [1], [1], [4]])
        XCTAssertEqual(ring.at([0.99]), [[0]])
    }

    func testTheRingIsBounded() throws {
        var ring = FeatureRing(keepS: 1)
        for number in 0..<1000 {
            try ring.add(timeS: Double(number) / 10, features: [Float(number)])
            XCTAssertLessThanOrEqual(ring.count, 12)
        }
        XCTAssertGreaterThanOrEqual(ring.count, 11)
        let startS = try XCTUnwrap(ring.startS)
        XCTAssertLessThanOrEqual(startS, 98.9 + 1e-9, "one frame stays from where the kept span begins")
        XCTAssertEqual(try XCTUnwrap(ring.endS), 100, accuracy: 1e-9)
        ring.clear()
        XCTAssertEqual(ring.count, 0)
        XCTAssertNil(ring.startS)
        XCTAssertNil(ring.endS)
        XCTAssertEqual(ring.at([1, 2]), [])
        try ring.add(timeS: -5, features: [1, 2])
        XCTAssertEqual(ring.endS, -5, "how long the only frame stays is not known yet")
    }

    func testTheRingRefusesWhatDoesNotFollow() throws {
        var ring = FeatureRing(keepS: 1)
        XCTAssertThrowsError(try ring.add(timeS: .nan, features: [0]))
        try ring.add(timeS: 1, features: [0, 0])
        for timeS in [1, 0.5, -Double.infinity, Double.infinity, Double.nan] {
            XCTAssertThrowsError(try ring.add(timeS: timeS, features: [0, 0]), "\(timeS)")
        }
        XCTAssertThrowsError(try ring.add(timeS: 1, features: [0, 0])) { error in
            XCTAssertEqual(error as? RollingError, .timesMustRise(timeS: 1, afterS: 1))
            XCTAssertTrue(error.localizedDescription.contains("times must rise"), error.localizedDescription)
        }
        XCTAssertThrowsError(try ring.add(timeS: 2, features: [0])) { error in
            XCTAssertEqual(error as? RollingError, .numFeatures(1, expected: 2))
        }
        XCTAssertEqual(ring.count, 1, "what was refused is not kept")
    }

    func testWindowsAreRefused() throws {
        for windowsS in [[], [0], [1, -2], [.nan], [1e9], [.infinity]] as [[Double]] {
            XCTAssertThrowsError(try RollingRecogniser(clip: clip, windowsS: windowsS), "\(windowsS)") { error in
                XCTAssertTrue(error.localizedDescription.contains("above 0"), error.localizedDescription)
            }
        }
        XCTAssertThrowsError(try RollingRecogniser(clip: ClipSpec(numFrames: 0))) { error in
            XCTAssertTrue(error.localizedDescription.contains("num_frames"), error.localizedDescription)
        }
        XCTAssertEqual(try RollingRecogniser(clip: clip).windowsS, RollingRecogniser.defaultWindowsS)
        XCTAssertEqual(try RollingRecogniser(clip: clip).refreshS, RollingRecogniser.defaultRefreshS)
    }

    func testAWindowSpeaksWhenItIsFull() throws {
        var recogniser = try RollingRecogniser(clip: clip, windowsS: [2, 1])
        XCTAssertEqual(recogniser.windowsS, [1, 2])
        XCTAssertNil(recogniser.probs { logits($0) })
        var firstS: [Int: Double] = [:]
        for number in 0..<25 {
            let timeS = Double(number) / 10
            try recogniser.keep(timeS: timeS, features: [1])
            let numFilled = recogniser.filled().count
            XCTAssertEqual(recogniser.probs { logits($0) } == nil, numFilled == 0)
            if firstS[numFilled] == nil { firstS[numFilled] = timeS }
        }
        // Half a bin may be missing, and the newest frame stays for as long as the one before it did.
        XCTAssertEqual(try XCTUnwrap(firstS[1]), 0.8, accuracy: 0.11)
        XCTAssertEqual(try XCTUnwrap(firstS[2]), 1.7, accuracy: 0.11)
        recogniser.forget()
        XCTAssertNil(recogniser.probs { logits($0) })
        XCTAssertTrue(recogniser.filled().isEmpty)
        try recogniser.keep(timeS: 0, features: [1])
    }

    func testWindowsTakeTurns() throws {
        for (fps, most) in [(50.0, 1), (8.0, 3)] {
            var recogniser = try RollingRecogniser(clip: clip, windowsS: [0.5, 1, 2])
            for number in 0..<Int(4 * fps) {
                try recogniser.keep(timeS: Double(number) / fps, features: [0])
                var numClassified = 0
                let probs = recogniser.probs { features in
                    numClassified += 1
                    return logits(features)
                }
                if Double(number) > 3 * fps {
                    XCTAssertEqual(numClassified, most, "\(fps) frames a second")
                    XCTAssertNotNil(probs)
                }
            }
        }
    }

    func testTheSurestWindowWeighsMost() throws {
        var recogniser = try RollingRecogniser(clip: clip, windowsS: [0.5, 1], refreshS: 0)
        for number in 0...20 {
            try recogniser.keep(timeS: Double(number) / 10, features: [Float(number)])
        }
        // The longer window begins with an older frame; it is sure, the other is not.
        let found = recogniser.probs { features in
            let isLonger = features[0][0] < 14
            return Logits(verb: isLonger ? [0, 9] : [0.1, 0], noun: isLonger ? [9, 0] : [0, 0.1])
        }
        let probs = try XCTUnwrap(found)
        XCTAssertGreaterThan(probs.verb[1], 0.98)
        XCTAssertGreaterThan(probs.noun[0], 0.98)
        XCTAssertEqual(probs.verb.reduce(0, +), 1, accuracy: 1e-5)
    }

    func testAFailureIsPassedOnAndNothingOfItIsKept() throws {
        var recogniser = try RollingRecogniser(clip: clip, windowsS: [0.2, 0.4])
        for number in 0..<10 {
            try recogniser.keep(timeS: Double(number) / 10, features: [1])
        }
        var numCalls = 0
        XCTAssertThrowsError(
            try recogniser.probs { features in
                numCalls += 1
                if numCalls == 2 { throw Broken() }
                return logits(features)
            }
        ) { error in
            XCTAssertTrue(error is Broken)
        }
        numCalls = 0
        XCTAssertNotNil(
            recogniser.probs { features in
                numCalls += 1
                return logits(features)
            }
        )
        XCTAssertEqual(numCalls, 2)
    }
}
