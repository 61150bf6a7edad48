import EgoChefCore
import Foundation
import XCTest

/// Metadata, probabilities, statistics and the report.
final class ModelTests: XCTestCase {
    private let json = """
        {"format": 1, "part": "encoder", "precision": "fp16", "checkpoint": "ab12", "recipe": "toy",
         "encoder": "efficientnet_lite0", "temporal": "bilstm", "num_features": 1280, "num_parameters": 7654321,
         "license": "MIT",
         "clip": {"num_frames": 16, "image_size": 160, "resize_size": 180, "mean": [0.485, 0.456, 0.406],
                  "std": [0.229, 0.224, 0.225], "sampling": "bins", "grid": {"fps": 10.0, "min_frames": 48}},
         "verbs": ["take", "open"], "nouns": ["plate", "drawer"]}
        """

    /// The metadata with one piece of text in the place of another, which has to be there.
    private func changed(_ old: String, _ new: String) throws -> String {
        XCTAssertTrue(json.contains(old), old)
        return json.replacingOccurrences(of: old, with: new)
    }

    func testMetadataIsRead() throws {
        let about = try ModelAbout(json: json)
        XCTAssertEqual(about.format, 1)
        XCTAssertEqual(about.part, .encoder)
        XCTAssertEqual(about.precision, "fp16")
        XCTAssertEqual(about.numFeatures, 1280)
        XCTAssertEqual(about.numParameters, 7_654_321)
        XCTAssertEqual(about.clip, ClipSpec(numFrames: 16, imageSize: 160, resizeSize: 180))
        XCTAssertEqual(about.actionName(verb: 1, noun: 1), "open drawer")
        let again = try JSONDecoder().decode(ModelAbout.self, from: JSONEncoder().encode(about))
        XCTAssertEqual(again, about)
    }

    func testMetadataIsRefused() throws {
        let wrong: [(old: String, new: String, says: String)] = [
            ("\"format\": 1", "\"format\": 2", "format 2, expected 1"),
            ("\"format\": 1, ", "", "format is missing"),
            ("\"format\": 1", "\"format\": \"1\"", "format is of another kind"),
            ("\"encoder\", \"precision\"", "\"tail\", \"precision\"", "part has a value that is not known"),
            ("\"checkpoint\": \"ab12\", ", "", "checkpoint is missing"),
            ("\"num_features\": 1280", "\"num_features\": 0", "num_features is 0, expected at least 1"),
            ("\"num_features\": 1280", "\"num_features\": null", "num_features is of another kind"),
            ("\"num_parameters\": 7654321", "\"num_parameters\": -1", "num_parameters is -1"),
            ("\"num_frames\": 16, ", "", "clip.num_frames is missing"),
            ("\"num_frames\": 16", "\"num_frames\": 0", "clip.num_frames is 0"),
            ("\"num_frames\": 16", "\"num_frames\": 49", "expected at most grid.min_frames 48"),
            ("\"image_size\": 160", "\"image_size\": 0", "clip.image_size is 0"),
            ("\"image_size\": 160", "\"image_size\": 181", "expected at least image_size 181"),
            ("0.456, 0.406]", "0.456]", "expected three each"),
            ("0.224, 0.225]", "0.224, 0.225, 1]", "expected three each"),
            ("0.224, 0.225]", "0.224, 0]", "positive stds"),
            ("\"bins\"", "\"dense\"", "expected \"bins\""),
            ("\"fps\": 10.0", "\"fps\": 0", "clip.grid.fps is 0"),
            ("\"min_frames\": 48", "\"min_frames\": 0", "clip.grid.min_frames is 0"),
            ("[\"take\", \"open\"]", "[]", "verbs is empty"),
            ("[\"plate\", \"drawer\"]", "[]", "nouns is empty"),
            ("[\"plate\", \"drawer\"]", "[\"plate\", 7]", "is of another kind"),
        ]
        for (old, new, says) in wrong {
            let text = try changed(old, new)
            XCTAssertThrowsError(try ModelAbout(json: text), says) { error in
                XCTAssertTrue(error is ModelAboutError, "\(error)")
                XCTAssertTrue(error.localizedDescription.contains(says), "\(error.localizedDescription), not \(says)")
            }
        }
        for text in ["", "no JSON", "[]", "{\"format\": 1"] {
            XCTAssertThrowsError(try ModelAbout(json: text), text) { error in
                XCTAssertTrue(error is ModelAboutError, "\(error)")
            }
        }
    }

    func testPairsBelongTogether() throws {
        let encoder = try ModelAbout(json: json)
        let head = try ModelAbout(json: changed("\"encoder\", \"precision\"", "\"head\", \"precision\""))
        XCTAssertTrue(encoder.belongsWith(head))
        XCTAssertTrue(head.belongsWith(encoder))
        let others = [
            ("ab12", "ab13"), ("\"num_frames\": 16", "\"num_frames\": 8"), ("\"take\"", "\"put\""),
            ("\"plate\"", "\"pan\""),
        ]
        for (old, new) in others {
            XCTAssertFalse(encoder.belongsWith(try ModelAbout(json: changed(old, new))), new)
        }
    }

    func testSoftmaxIsStable() {
        assertClose(softmax([1e30, 1e30, -1e30]), [0.5, 0.5, 0])
        assertClose(softmax([-1e30, -1e30]), [0.5, 0.5])
        assertClose(softmax([1000, 999]), [0.7310586, 0.2689414])
        assertClose(softmax([-3]), [1])
        XCTAssertEqual(softmax([]), [])
        let small = softmax([0, 1, 2, 3])
        XCTAssertEqual(small.reduce(0, +), 1, accuracy: 1e-6)
        XCTAssertEqual(small, small.sorted())
    }

    func testTopK() {
        XCTAssertEqual(topK([0.1, 0.4, 0.4, 0.05], 3), [1, 2, 0])
        XCTAssertEqual(topK([0.2, 0.2, 0.2], 2), [0, 1])
        XCTAssertEqual(topK([0.2, 0.8], 9), [1, 0])
        XCTAssertEqual(topK([0.2, 0.8], 0), [])
        XCTAssertEqual(topK([], 5), [])
    }

    func testSmoothingHoldsAndLetsGo() {
        var smoother = Smoother(verbs: ["take", "put"], nouns: ["pan"], settings: Smoothing(tauS: 0))
        func shown(_ first: Float, _ second: Float) -> String? {
            smoother.update(timeS: 0, probs: Probs(verb: [first, second], noun: [1])).shown
        }
        XCTAssertNil(shown(0.15, 0.1), "uncertain")
        XCTAssertEqual(shown(0.3, 0.1), "take pan")
        XCTAssertEqual(shown(0.3, 0.35), "take pan", "the other is not that much more probable")
        XCTAssertEqual(shown(0.3, 0.45), "put pan")
        XCTAssertEqual(shown(0.01, 0.13), "put pan", "above its share of the threshold")
        XCTAssertNil(shown(0.01, 0.11))
        XCTAssertEqual(shown(0.3, 0.1), "take pan")
        smoother.forget()
        XCTAssertNil(shown(0.15, 0.1), "nothing of before holds")
    }

    func testSmoothingAveragesOverTime() {
        var smoother = Smoother(verbs: ["take", "put"], nouns: ["pan"], settings: Smoothing(tauS: 2))
        _ = smoother.update(timeS: 10, probs: Probs(verb: [1, 0], noun: [1]))
        let said = smoother.update(timeS: 12, probs: Probs(verb: [0, 1], noun: [1]))
        let old = exp(-1.0) // the share of the moment before
        XCTAssertEqual(said.verb[0].name, "put")
        XCTAssertEqual(said.verb[0].prob, 1 - old, accuracy: 1e-6)
        XCTAssertEqual(said.verb[1].prob, old, accuracy: 1e-6)
    }

    func testRateForgetsAfterTwoSeconds() {
        var meter = RateMeter()
        XCTAssertEqual(meter.perS(nowS: 0), 0)
        for number in 0..<30 {
            meter.tick(atS: Double(number) / 10)
        }
        XCTAssertEqual(meter.perS(nowS: 2.9), 10, accuracy: 1e-6)
        XCTAssertEqual(meter.perS(nowS: 6), 0)
        XCTAssertEqual(meter.count, 30)
    }

    func testLatencies() {
        var stats = LatencyStats()
        XCTAssertNil(stats.recent())
        XCTAssertNil(stats.overAll())
        for _ in 0..<300 { stats.add(ms: 100) }
        for _ in 0..<300 { stats.add(ms: 1) }
        XCTAssertEqual(stats.recent(), Spread(medianMs: 1, p95Ms: 1))
        XCTAssertEqual(stats.overAll(), Spread(medianMs: 50.5, p95Ms: 100))
        XCTAssertEqual(stats.count, 600)
        XCTAssertNil(Spread(ofMs: []))
    }

    func testTimeline() {
        var timeline = Timeline(keepS: 2)
        timeline.add(timeS: 0, label: "a")
        timeline.add(timeS: 1, label: "a")
        timeline.add(timeS: 1.5, label: nil)
        timeline.add(timeS: 2, label: "b")
        XCTAssertEqual(timeline.parts, [
            TimelinePart(startS: 0, stopS: 1.5, label: "a"),
            TimelinePart(startS: 1.5, stopS: 2, label: nil),
            TimelinePart(startS: 2, stopS: 2, label: "b"),
        ])
        timeline.add(timeS: 3.6, label: "b")
        XCTAssertEqual(timeline.parts.map { $0.label }, [nil, "b"])
    }

    func testTheReportComesBack() throws {
        let about = try ModelAbout(json: json)
        for values in [[20.25, 21.5], nil] as [[Double]?] {
            let report = BenchmarkReport(
                appVersion: "0.1.0 (1)",
                deviceModel: "iPhone15,2",
                system: "iOS 17.5",
                date: "2025-01-02T03:04:05Z",
                model: BenchmarkReport.Model(about),
                computeUnits: "all",
                thermalBefore: "nominal",
                thermalAfter: "fair",
                numFrames: 300,
                encoder: Spread(medianMs: 20.88, p95Ms: 21.44),
                encoderMs: values,
                head: Spread(medianMs: 1.5, p95Ms: 2.25),
                framesPerS: 29.97,
                seconds: 10.01
            )
            let data = try report.json()
            XCTAssertEqual(try JSONDecoder().decode(BenchmarkReport.self, from: data), report)
            XCTAssertEqual(try report.json(), data)
            let text = try XCTUnwrap(String(data: data, encoding: .utf8))
            let places = ["app_version", "encoder", "median_ms", "p95_ms", "frames_per_s", "head"].map { key in
                text.range(of: "\"\(key)\"")?.lowerBound
            }
            let found = places.compactMap { $0 }
            XCTAssertEqual(found.count, places.count, text)
            XCTAssertEqual(found, found.sorted(), "keys are sorted")
            XCTAssertEqual(text.contains("encoder_ms"), values != nil)
        }
    }

    func testAReportOfWhatIsNoNumberIsRefused() throws {
        let spread = Spread(medianMs: 1, p95Ms: 1)
        let report = BenchmarkReport(
            appVersion: "0.1.0",
            deviceModel: "iPhone15,2",
            system: "iOS 17.5",
            date: "2025-01-02T03:04:05Z",
            model: BenchmarkReport.Model(try ModelAbout(json: json)),
            computeUnits: "all",
            thermalBefore: "nominal",
            thermalAfter: "nominal",
            numFrames: 0,
            encoder: spread,
            head: spread,
            framesPerS: .infinity,
            seconds: 0
        )
        XCTAssertThrowsError(try report.json())
    }
}
