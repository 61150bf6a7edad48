import EgoChefCore
import Observation
import QuartzCore
import UIKit

/// The recognition as the screen sees it: where frames come from, what runs, and what was recognised.
@MainActor
@Observable
final class LiveModel {
    enum Source: Equatable, Sendable {
        case camera
        case file(URL)
    }

    enum Models: Equatable, Sendable {
        case none
        case loading
        case ready
        case failed(String)
    }

    /// Seconds of the timeline.
    nonisolated static let timelineS = 60.0

    private(set) var access = CameraAccess.now()
    private(set) var source = Source.camera
    private(set) var sourceState = SourceState.idle
    private(set) var models = Models.none
    private(set) var pair: ModelPair?
    private(set) var prediction: Prediction?
    private(set) var timeline = Timeline(keepS: LiveModel.timelineS)
    /// Of the newest answer, on the source's clock, seconds.
    private(set) var nowS = 0.0
    private(set) var stats = LiveStats()
    /// Width over height of the source's frames.
    private(set) var aspect = 9.0 / 16.0
    private(set) var isTooSlow = false
    private(set) var fault: String?

    let device: DeviceWatch
    let camera: Camera
    let video: VideoFile

    private let pipeline: Pipeline
    @ObservationIgnored private var settings = LiveSettings.standard
    @ObservationIgnored private var units = ComputeChoice.all
    @ObservationIgnored private var runner: ModelRunner?
    @ObservationIgnored private var loading: Task<Void, Never>?
    @ObservationIgnored private var isInFront = false
    @ObservationIgnored private var isMeasuring = false
    /// What was told to run.
    @ObservationIgnored private var running: Source?
    @ObservationIgnored private var announcer = Announcer()

    init(device: DeviceWatch) {
        let pipeline = Pipeline()
        self.device = device
        self.pipeline = pipeline
        camera = Camera { frame in pipeline.offer(frame) }
        video = VideoFile { frame in pipeline.offer(frame) }
        device.onChange = { [weak self] in self?.update() }
        follow()
    }

    // MARK: What the person and the system want

    /// The app has come to the front, or left it.
    func setInFront(_ isInFront: Bool) {
        self.isInFront = isInFront
        if isInFront { access = CameraAccess.now() }
        update()
    }

    /// While the benchmark runs, nothing else does.
    func setMeasuring(_ isMeasuring: Bool) {
        self.isMeasuring = isMeasuring
        update()
    }

    func askForCamera() async {
        access = await CameraAccess.ask()
        update()
    }

    func show(_ source: Source) {
        stopSource()
        self.source = source
        update()
    }

    /// After a fault, or after the end of a video.
    func tryAgain() {
        stopSource()
        update()
    }

    func apply(_ settings: LiveSettings) {
        self.settings = settings
        if let runner { pipeline.use(runner, settings: settings) }
        update()
    }

    /// Loads a pair of models, off the main thread; nil: there is none.
    func use(_ pair: ModelPair?, units: ComputeChoice) {
        if pair == self.pair, units == self.units, models == .loading || models == .ready { return }
        self.pair = pair
        self.units = units
        loading?.cancel()
        runner = nil
        pipeline.use(nil, settings: settings)
        guard let pair else {
            models = .none
            update()
            return
        }
        models = .loading
        update()
        loading = Task { [weak self] in
            do {
                let runner = try await ModelRunner.load(pair, units: units)
                if !Task.isCancelled { self?.begin(with: runner) }
            } catch {
                if !Task.isCancelled { self?.models = .failed(error.localizedDescription) }
            }
        }
    }

    private func begin(with runner: ModelRunner) {
        self.runner = runner
        models = .ready
        pipeline.use(runner, settings: settings)
        update()
    }

    // MARK: What runs

    /// Starts and stops the source, and sets the pace, as it all stands now.
    private func update() {
        let isHot = device.thermal == .serious
        pipeline.setPace(encodeEvery: settings.encodeEvery * (isHot ? 2 : 1))
        let canRun = isInFront && !isMeasuring && models == .ready && device.thermal != .critical
        let canSee = source != .camera || access == .granted
        if canRun && canSee {
            startSource()
        } else {
            stopSource()
        }
        UIApplication.shared.isIdleTimerDisabled = settings.keepsAwake && running != nil
    }

    private func startSource() {
        if running == source { return }
        running = source
        sourceState = .starting
        switch source {
        case .camera: camera.start()
        case .file(let url): video.play(url)
        }
    }

    private func stopSource() {
        guard let stopped = running else { return }
        running = nil
        sourceState = .idle
        switch stopped {
        case .camera: camera.stop()
        case .file: video.stop()
        }
        forget()
    }

    private func forget() {
        pipeline.forget()
        prediction = nil
        timeline = Timeline(keepS: LiveModel.timelineS)
        stats = LiveStats()
        isTooSlow = false
        fault = nil
    }

    // MARK: What comes

    private func follow() {
        // These tasks live as long as the app: a stream that nobody follows any more ends.
        Task { [weak self, answers = pipeline.answers] in
            for await answer in answers { self?.take(answer) }
        }
        Task { [weak self, states = camera.states] in
            for await state in states { self?.take(state, isOfCamera: true) }
        }
        Task { [weak self, states = video.states] in
            for await state in states { self?.take(state, isOfCamera: false) }
        }
    }

    private func take(_ state: SourceState, isOfCamera: Bool) {
        guard isOfCamera == (source == .camera) else { return }
        sourceState = state
        switch state {
        case .interrupted, .failed, .ended: forget()
        case .idle, .starting, .running: break
        }
    }

    private func take(_ answer: Answer) {
        // One may still be on its way when the source has been stopped.
        guard running != nil else { return }
        if answer.timeS < nowS { timeline = Timeline(keepS: LiveModel.timelineS) }
        prediction = answer.prediction
        nowS = answer.timeS
        // What seldom changes is set seldom: each setting draws the views that read it.
        if stats != answer.stats { stats = answer.stats }
        if aspect != answer.aspect { aspect = answer.aspect }
        if isTooSlow != answer.isTooSlow { isTooSlow = answer.isTooSlow }
        if fault != answer.fault { fault = answer.fault }
        if let prediction = answer.prediction {
            timeline.add(timeS: answer.timeS, label: prediction.shown)
            announcer.tell(prediction.shown, nowS: CACurrentMediaTime())
        }
    }
}
