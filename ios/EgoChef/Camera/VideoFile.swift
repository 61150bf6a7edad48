import AVFoundation
import QuartzCore

/// A video file as a source of frames, at its own pace: to try the app without a camera.
@MainActor
final class VideoFile {
    /// Where it is shown.
    let layer = AVSampleBufferDisplayLayer()
    /// To be followed by one task, for good.
    let states: AsyncStream<SourceState>

    private let tell: AsyncStream<SourceState>.Continuation
    private let onFrame: @Sendable (Frame) -> Void
    private var playing: Task<Void, Never>?

    init(onFrame: @escaping @Sendable (Frame) -> Void) {
        self.onFrame = onFrame
        (states, tell) = AsyncStream.makeStream(of: SourceState.self)
        layer.videoGravity = .resizeAspectFill
    }

    /// From the beginning.
    func play(_ url: URL) {
        playing?.cancel()
        let screen = VideoScreen(renderer: layer.sampleBufferRenderer)
        playing = Task.detached(priority: .userInitiated) { [tell, onFrame] in
            tell.yield(.starting)
            do {
                try await VideoReading.run(url, screen: screen, onBegin: { tell.yield(.running) }, onFrame: onFrame)
                // Whoever stopped it says so, here and below.
                if !Task.isCancelled { tell.yield(.ended) }
            } catch {
                if !Task.isCancelled { tell.yield(.failed(error.localizedDescription)) }
            }
        }
    }

    func stop() {
        playing?.cancel()
        playing = nil
        tell.yield(.idle)
    }
}

/// The renderer of a layer, which may be fed from any one thread.
struct VideoScreen: @unchecked Sendable {
    let renderer: AVSampleBufferVideoRenderer

    func show(_ sample: CMSampleBuffer) {
        // After the app was in the background, it takes nothing until it is flushed.
        if renderer.status == .failed || renderer.requiresFlushToResumeDecoding { renderer.flush() }
        // The reading keeps the pace, so there is no clock to show it by.
        let all = CMSampleBufferGetSampleAttachmentsArray(sample, createIfNecessary: true)
        if let attachments = (all as? [NSMutableDictionary])?.first {
            attachments[kCMSampleAttachmentKey_DisplayImmediately] = true
        }
        renderer.enqueue(sample)
    }
}

/// Why a file cannot be played.
enum VideoFault: LocalizedError {
    case noPicture
    case unreadable

    var errorDescription: String? {
        switch self {
        case .noPicture: return "The file has no video track."
        case .unreadable: return "The video cannot be read."
        }
    }
}

private enum VideoReading {
    /// A reader that falls so far behind starts its pace anew instead of running after it, seconds.
    static let mostLateS = 0.25

    static func run(
        _ url: URL,
        screen: VideoScreen,
        onBegin: @Sendable () -> Void,
        onFrame: @Sendable (Frame) -> Void
    ) async throws {
        let asset = AVURLAsset(url: url)
        let tracks = try await asset.loadTracks(withMediaType: .video)
        guard !tracks.isEmpty else { throw VideoFault.noPicture }
        let output = AVAssetReaderVideoCompositionOutput(videoTracks: tracks, videoSettings: [
            kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA,
            kCVPixelBufferIOSurfacePropertiesKey as String: [String: Any](),
        ])
        // The composition turns a picture upright that was filmed with the phone held otherwise.
        output.videoComposition = try await AVVideoComposition.videoComposition(withPropertiesOf: asset)
        let reader = try AVAssetReader(asset: asset)
        guard reader.canAdd(output) else { throw VideoFault.unreadable }
        reader.add(output)
        guard reader.startReading() else { throw reader.error ?? VideoFault.unreadable }
        defer { reader.cancelReading() }
        try Task.checkCancellation()
        onBegin()
        var beganAtS: Double? // on the host's clock, time 0 of the video
        while let sample = output.copyNextSampleBuffer() {
            try Task.checkCancellation()
            guard let buffer = CMSampleBufferGetImageBuffer(sample) else { continue }
            let timeS = CMSampleBufferGetPresentationTimeStamp(sample).seconds
            let waitS = (beganAtS ?? CACurrentMediaTime() - timeS) + timeS - CACurrentMediaTime()
            if waitS > 0 { try await Task.sleep(for: .seconds(waitS)) }
            if beganAtS == nil || waitS < -mostLateS { beganAtS = CACurrentMediaTime() - timeS }
            screen.show(sample)
            onFrame(Frame(buffer: buffer, timeS: timeS, capturedAtS: CACurrentMediaTime()))
        }
        if reader.status == .failed { throw reader.error ?? VideoFault.unreadable }
    }
}
