import EgoChefCore
import Foundation
import Observation

/// A benchmark under way, and what came of the last one.
@MainActor
@Observable
final class BenchmarkModel {
    private(set) var isRunning = false
    /// Share that is done, 0...1.
    private(set) var progress = 0.0
    private(set) var report: BenchmarkReport?
    /// Of the report, to be shared.
    private(set) var file: URL?
    private(set) var fault: String?
    @ObservationIgnored private var work: Task<Void, Never>?

    func start(_ pair: ModelPair, units: ComputeChoice, numRounds: Int) {
        if isRunning { return }
        isRunning = true
        progress = 0
        report = nil
        file = nil
        fault = nil
        let place = BenchmarkRunner.Place(
            appVersion: AboutApp.version, deviceModel: AboutApp.deviceModel, system: AboutApp.system
        )
        work = Task { [weak self] in
            do {
                let report = try await BenchmarkRunner.run(pair, units: units, numRounds: numRounds, place: place) {
                    [weak self] share in
                    Task { @MainActor [weak self] in self?.progress = share }
                }
                let file = try BenchmarkRunner.write(report)
                self?.report = report
                self?.file = file
            } catch is CancellationError {
                // The person left the screen.
            } catch {
                self?.fault = error.localizedDescription
            }
            self?.isRunning = false
        }
    }

    func cancel() {
        work?.cancel()
    }
}
