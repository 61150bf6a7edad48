import EgoChefCore
import Foundation
import QuartzCore

/// Measures an encoder and its head on pictures of noise, as fast as they go.
enum BenchmarkRunner {
    /// Rounds that are not counted: the first ones of a model are slow.
    static let numWarmUps = 10
    /// Pictures that are taken in turn.
    static let numPictures = 8

    /// What cannot be read off the main thread.
    struct Place: Sendable {
        let appVersion: String
        let deviceModel: String
        let system: String
    }

    /// Loads the pair and measures it. A round is one frame: encoder, then head over one window.
    ///
    /// - Parameter onProgress: called with the share that is done, 0...1.
    static func run(
        _ pair: ModelPair,
        units: ComputeChoice,
        numRounds: Int,
        place: Place,
        onProgress: @Sendable (Double) -> Void
    ) async throws -> BenchmarkReport {
        let runner = try await ModelRunner.load(pair, units: units)
        let about = runner.about
        let pictures = try (0..<numPictures).map { number in
            try SyntheticPicture.make(size: about.clip.imageSize, seed: UInt64(number + 1))
        }
        var window = try Array(repeating: runner.encode(pictures[0]), count: about.clip.numFrames)
        let thermalBefore = ProcessInfo.processInfo.thermalState.text
        let date = Date.now.formatted(.iso8601)
        var encoderMs: [Double] = []
        var headMs: [Double] = []
        var beganAtS = CACurrentMediaTime()
        for round in 0..<(numWarmUps + numRounds) {
            try Task.checkCancellation()
            if round == numWarmUps { beganAtS = CACurrentMediaTime() }
            let startS = CACurrentMediaTime()
            // Its own pools: what Core ML leaves behind must not pile up over a thousand rounds.
            let features = try autoreleasepool { try runner.encode(pictures[round % pictures.count]) }
            let encodedS = CACurrentMediaTime()
            window.removeFirst()
            window.append(features)
            _ = try autoreleasepool { try runner.classify(window) }
            let stopS = CACurrentMediaTime()
            if round >= numWarmUps {
                encoderMs.append(1000 * (encodedS - startS))
                headMs.append(1000 * (stopS - encodedS))
            }
            onProgress(Double(round + 1) / Double(numWarmUps + numRounds))
            await Task.yield()
        }
        let seconds = CACurrentMediaTime() - beganAtS
        guard let encoder = Spread(ofMs: encoderMs), let head = Spread(ofMs: headMs) else {
            throw ModelFault("There was nothing to measure.")
        }
        return BenchmarkReport(
            appVersion: place.appVersion,
            deviceModel: place.deviceModel,
            system: place.system,
            date: date,
            model: BenchmarkReport.Model(about),
            computeUnits: units.rawValue,
            thermalBefore: thermalBefore,
            thermalAfter: ProcessInfo.processInfo.thermalState.text,
            numFrames: numRounds,
            encoder: encoder,
            encoderMs: encoderMs,
            head: head,
            headMs: headMs,
            framesPerS: Double(numRounds) / seconds,
            seconds: seconds
        )
    }

    /// Writes a report where it can be shared from.
    static func write(_ report: BenchmarkReport) throws -> URL {
        let url = FileManager.default.temporaryDirectory.appending(path: "egochef-benchmark.json")
        try report.json().write(to: url, options: .atomic)
        return url
    }
}
