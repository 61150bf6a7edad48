import EgoChefCore
import Foundation
import XCTest

/// Swift and Python say the same of the same inputs.
final class GoldenTests: XCTestCase {
    func testSampling() throws {
        let vectors = try readGolden("sampling", as: SamplingVectors.self)
        XCTAssertFalse(vectors.segments.isEmpty || vectors.views.isEmpty || vectors.windows.isEmpty)
        for segment in vectors.segments {
            let timesS = candidateTimes(startS: segment.startS, stopS: segment.stopS, grid: segment.grid)
            assertClose(timesS, segment.timesS, "candidates of \(segment.startS) to \(segment.stopS) s")
            XCTAssertTrue(timesS.allSatisfy { $0 >= segment.startS && $0 < segment.stopS })
        }
        for view in vectors.views {
            let places = viewPlaces(numCandidates: view.numCandidates, numFrames: view.numFrames)
            XCTAssertEqual(places, view.places, "\(view.numFrames) of \(view.numCandidates)")
        }
        for window in vectors.windows {
            let timesS = windowTimes(windowS: window.windowS, clip: window.clip)
            assertClose(timesS, window.timesS, "\(window.windowS) s, \(window.clip.numFrames) frames")
        }
    }

    func testRing() throws {
        let vectors = try readGolden("ring", as: RingVectors.self)
        XCTAssertFalse(vectors.runs.isEmpty)
        for run in vectors.runs {
            var ring = FeatureRing(keepS: run.keepS)
            for (number, step) in run.steps.enumerated() {
                try ring.add(timeS: step.timeS, features: [Float(number), -Float(number)])
                XCTAssertEqual(ring.count, step.count, "keeps \(run.keepS) s, frame \(number)")
                XCTAssertEqual(try XCTUnwrap(ring.startS), step.startS, accuracy: tolerance)
                XCTAssertEqual(try XCTUnwrap(ring.endS), step.endS, accuracy: tolerance)
                let found = ring.at(step.askedS)
                XCTAssertEqual(found, step.found.map { [Float($0), -Float($0)] }, "keeps \(run.keepS) s, \(number)")
            }
        }
    }

    func testRolling() throws {
        let vectors = try readGolden("rolling", as: RollingVectors.self)
        XCTAssertFalse(vectors.runs.isEmpty)
        for run in vectors.runs {
            var recogniser = try RollingRecogniser(
                clip: run.clip,
                windowsS: run.windowsS,
                refreshS: run.refreshS,
                keepS: run.keepS
            )
            XCTAssertEqual(recogniser.windowsS, run.windowsS.sorted())
            var numSaid = 0
            for (number, step) in run.steps.enumerated() {
                let at = "\(run.name), frame \(number)"
                if step.forget { recogniser.forget() }
                try recogniser.keep(timeS: step.timeS, features: step.features)
                XCTAssertEqual(recogniser.ring.count, step.count, at)
                let filled = recogniser.filled(middleS: step.middleS)
                XCTAssertEqual(filled.map { $0.place }, step.filled.map { $0.place }, at)
                assertClose(filled.map { $0.startS }, step.filled.map { $0.startS }, at)
                var numClassified = 0
                let found = recogniser.probs(middleS: step.middleS) { features in
                    XCTAssertEqual(features.count, run.clip.numFrames, at)
                    numClassified += 1
                    return run.logits(of: features)
                }
                XCTAssertEqual(numClassified, step.numClassified, at)
                guard let verb = step.verb, let noun = step.noun else {
                    XCTAssertNil(found, at)
                    continue
                }
                let probs = try XCTUnwrap(found, at)
                assertClose(probs.verb, verb, at)
                assertClose(probs.noun, noun, at)
                numSaid += 1
            }
            XCTAssertGreaterThan(numSaid, 15, run.name)
        }
    }

    func testSmoothing() throws {
        let vectors = try readGolden("smoothing", as: SmoothingVectors.self)
        XCTAssertFalse(vectors.runs.isEmpty)
        for run in vectors.runs {
            var smoother = Smoother(verbs: vectors.verbs, nouns: vectors.nouns)
            for (number, step) in run.steps.enumerated() {
                let at = "\(run.name), moment \(number)"
                if step.forget { smoother.forget() }
                smoother.settings = step.settings
                let said = smoother.update(timeS: step.timeS, probs: Probs(verb: step.verb, noun: step.noun))
                XCTAssertEqual(said.timeS, step.timeS, at)
                assertClose(said.verb, step.bestVerbs, at)
                assertClose(said.noun, step.bestNouns, at)
                assertClose(said.action, step.bestActions, at)
                XCTAssertEqual(said.shown, step.shown, at)
                XCTAssertEqual(said.shownVerb, step.shownVerb, at)
                XCTAssertEqual(said.shownNoun, step.shownNoun, at)
                XCTAssertEqual(said.shownProb, step.shownProb, accuracy: tolerance, at)
            }
        }
    }

    func testRanking() throws {
        let vectors = try readGolden("ranking", as: RankingVectors.self)
        XCTAssertFalse(vectors.cases.isEmpty || vectors.softmax.isEmpty)
        for (number, each) in vectors.cases.enumerated() {
            let probs = Probs(verb: each.verb, noun: each.noun)
            let ranking = rank(probs, verbs: each.verbs, nouns: each.nouns)
            assertClose(ranking.verb, each.bestVerbs, "verbs of case \(number)")
            assertClose(ranking.noun, each.bestNouns, "nouns of case \(number)")
            assertClose(ranking.action, each.bestActions, "actions of case \(number)")
        }
        for each in vectors.softmax {
            assertClose(softmax(each.logits), each.probs, "softmax of \(each.logits)")
        }
    }

    func testLatencies() throws {
        let vectors = try readGolden("stats", as: StatsVectors.self)
        XCTAssertFalse(vectors.latencies.isEmpty)
        for each in vectors.latencies {
            var stats = LatencyStats()
            for valueMs in each.valuesMs {
                stats.add(ms: valueMs)
            }
            XCTAssertEqual(stats.count, each.valuesMs.count)
            let found = [try XCTUnwrap(stats.recent()), try XCTUnwrap(stats.overAll())]
            let expected = [each.recent, each.overAll]
            assertClose(found.map { $0.medianMs }, expected.map { $0.medianMs }, "median of \(each.valuesMs)")
            assertClose(found.map { $0.p95Ms }, expected.map { $0.p95Ms }, "95th percentile of \(each.valuesMs)")
        }
    }

    func testCropping() throws {
        let vectors = try readGolden("cropping", as: CroppingVectors.self)
        XCTAssertFalse(vectors.crops.isEmpty)
        for each in vectors.crops {
            let plan = EvalCrop(
                width: each.width,
                height: each.height,
                imageSize: each.imageSize,
                resizeSize: each.resizeSize
            )
            XCTAssertEqual(plan.rows.taps.count, each.imageSize)
            XCTAssertEqual(plan.columns.taps.count, each.imageSize)
            for (row, down) in plan.rows.taps.enumerated() {
                for (column, across) in plan.columns.taps.enumerated() {
                    var sum: Float = 0
                    for (y, rowWeight) in down.weights.enumerated() {
                        let line = (plan.rows.first + down.start + y) * each.width
                        for (x, columnWeight) in across.weights.enumerated() {
                            let place = line + plan.columns.first + across.start + x
                            sum += rowWeight * columnWeight * Float(each.picture[place])
                        }
                    }
                    // The Python code computes in eight bits, rounding twice.
                    let expected = Float(each.crop[row * each.imageSize + column])
                    XCTAssertEqual(sum, expected, accuracy: 1.01, "\(each.width) x \(each.height), \(row), \(column)")
                }
            }
        }
    }

    func testRates() throws {
        let vectors = try readGolden("stats", as: StatsVectors.self)
        XCTAssertFalse(vectors.rates.isEmpty)
        for run in vectors.rates {
            var meter = RateMeter()
            for step in run.steps {
                if step.tick { meter.tick(atS: step.nowS) }
                XCTAssertEqual(meter.count, step.count, "at \(step.nowS) s")
                XCTAssertEqual(meter.perS(nowS: step.nowS), step.perS, accuracy: tolerance, "at \(step.nowS) s")
            }
        }
    }

    func testTimelines() throws {
        let vectors = try readGolden("stats", as: StatsVectors.self)
        XCTAssertFalse(vectors.timelines.isEmpty)
        for run in vectors.timelines {
            var timeline = Timeline(keepS: run.keepS)
            for step in run.steps {
                timeline.add(timeS: step.timeS, label: step.label)
                let at = "keeps \(run.keepS) s, at \(step.timeS) s"
                XCTAssertEqual(timeline.parts.map { $0.label }, step.parts.map { $0.label }, at)
                assertClose(timeline.parts.map { $0.startS }, step.parts.map { $0.startS }, at)
                assertClose(timeline.parts.map { $0.stopS }, step.parts.map { $0.stopS }, at)
            }
        }
    }
}
