import EgoChefCore
import Foundation
import XCTest

/// The vectors in Golden/, which tests/ios/golden.py writes: what the Python code says of the same inputs.
func readGolden<T: Decodable>(_ name: String, as type: T.Type) throws -> T {
    let found = Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Golden")
    let url = try XCTUnwrap(found, "Golden/\(name).json is not in the test bundle")
    return try JSONDecoder().decode(type, from: Data(contentsOf: url))
}

/// Swift and Python may differ by this much.
let tolerance = 1e-5

func assertClose(
    _ found: [Double],
    _ expected: [Double],
    _ message: String = "",
    file: StaticString = #filePath,
    line: UInt = #line
) {
    XCTAssertEqual(found.count, expected.count, message, file: file, line: line)
    for (place, pair) in zip(found, expected).enumerated() {
        XCTAssertEqual(pair.0, pair.1, accuracy: tolerance, "\(message) [\(place)]", file: file, line: line)
    }
}

func assertClose(
    _ found: [Float],
    _ expected: [Float],
    _ message: String = "",
    file: StaticString = #filePath,
    line: UInt = #line
) {
    assertClose(found.map { Double($0) }, expected.map { Double($0) }, message, file: file, line: line)
}

func assertClose(
    _ found: [RankedClass],
    _ expected: [RankedClass],
    _ message: String = "",
    file: StaticString = #filePath,
    line: UInt = #line
) {
    XCTAssertEqual(found.map { $0.name }, expected.map { $0.name }, message, file: file, line: line)
    assertClose(found.map { $0.prob }, expected.map { $0.prob }, message, file: file, line: line)
}

struct SamplingVectors: Decodable {
    struct Segment: Decodable {
        let startS: Double
        let stopS: Double
        let grid: Grid
        let timesS: [Double]
    }

    struct View: Decodable {
        let numCandidates: Int
        let numFrames: Int
        let places: [Int]
    }

    struct Window: Decodable {
        let windowS: Double
        let clip: ClipSpec
        let timesS: [Double]
    }

    let segments: [Segment]
    let views: [View]
    let windows: [Window]
}

struct RingVectors: Decodable {
    struct Step: Decodable {
        let timeS: Double
        let count: Int
        let startS: Double
        let endS: Double
        let askedS: [Double]
        /// Numbers of the frames that are on screen then.
        let found: [Int]
    }

    struct Run: Decodable {
        let keepS: Double
        let steps: [Step]
    }

    let runs: [Run]
}

struct RollingVectors: Decodable {
    struct Filled: Decodable {
        let place: Int
        let startS: Double
    }

    struct Step: Decodable {
        let timeS: Double
        /// Begin anew before this frame.
        let forget: Bool
        let features: [Float]
        let middleS: Double?
        let count: Int
        let filled: [Filled]
        let numClassified: Int
        let verb: [Float]?
        let noun: [Float]?
    }

    struct Run: Decodable {
        let name: String
        let clip: ClipSpec
        let windowsS: [Double]
        let refreshS: Double
        let keepS: Double?
        /// (V) rows of (D).
        let verbWeights: [[Double]]
        /// (N) rows of (D).
        let nounWeights: [[Double]]
        let steps: [Step]

        /// logits = W @ sum over t of (t + 1) * features_t: the order of the frames counts.
        func logits(of features: [[Float]]) -> Logits {
            var sums = [Double](repeating: 0, count: features[0].count)
            for (number, frame) in features.enumerated() {
                for place in sums.indices {
                    sums[place] += Double(number + 1) * Double(frame[place])
                }
            }
            return Logits(verb: products(verbWeights, sums), noun: products(nounWeights, sums))
        }

        private func products(_ weights: [[Double]], _ sums: [Double]) -> [Float] {
            weights.map { row in
                var total = 0.0
                for (weight, sum) in zip(row, sums) {
                    total += weight * sum
                }
                return Float(total)
            }
        }
    }

    let runs: [Run]
}

struct SmoothingVectors: Decodable {
    struct Step: Decodable {
        let timeS: Double
        /// Begin anew before this moment.
        let forget: Bool
        let settings: Smoothing
        let verb: [Float]
        let noun: [Float]
        let bestVerbs: [RankedClass]
        let bestNouns: [RankedClass]
        let bestActions: [RankedClass]
        let shown: String?
        let shownVerb: Int?
        let shownNoun: Int?
        let shownProb: Double
    }

    struct Run: Decodable {
        let name: String
        let steps: [Step]
    }

    let verbs: [String]
    let nouns: [String]
    let runs: [Run]
}

struct RankingVectors: Decodable {
    struct Case: Decodable {
        let verbs: [String]
        let nouns: [String]
        let verb: [Float]
        let noun: [Float]
        let bestVerbs: [RankedClass]
        let bestNouns: [RankedClass]
        let bestActions: [RankedClass]
    }

    struct Softmax: Decodable {
        let logits: [Float]
        let probs: [Float]
    }

    let cases: [Case]
    let softmax: [Softmax]
}

struct CroppingVectors: Decodable {
    struct Crop: Decodable {
        let width: Int
        let height: Int
        let imageSize: Int
        let resizeSize: Int
        /// One channel, rows from the top.
        let picture: [Int]
        let crop: [Int]
    }

    let crops: [Crop]
}

struct StatsVectors: Decodable {
    struct Latencies: Decodable {
        let valuesMs: [Double]
        let recent: Spread
        let overAll: Spread
    }

    struct RateStep: Decodable {
        let nowS: Double
        let tick: Bool
        let perS: Double
        let count: Int
    }

    struct Rate: Decodable {
        let steps: [RateStep]
    }

    struct Part: Decodable {
        let startS: Double
        let stopS: Double
        let label: String?
    }

    struct TimelineStep: Decodable {
        let timeS: Double
        let label: String?
        let parts: [Part]
    }

    struct TimelineRun: Decodable {
        let keepS: Double
        let steps: [TimelineStep]
    }

    let latencies: [Latencies]
    let rates: [Rate]
    let timelines: [TimelineRun]
}
