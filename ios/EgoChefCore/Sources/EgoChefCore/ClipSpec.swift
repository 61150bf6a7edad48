import Foundation

/// The candidate times of a segment, evenly spread: every clip chooses its T frames among them.
public struct Grid: Codable, Equatable, Sendable {
    /// Candidates a second.
    public let fps: Double
    /// Candidates at least, in short segments.
    public let minFrames: Int

    enum CodingKeys: String, CodingKey {
        case fps
        case minFrames = "min_frames"
    }

    public init(fps: Double = 10, minFrames: Int = 48) {
        self.fps = fps
        self.minFrames = minFrames
    }
}

/// How a segment of video becomes a model's input: T RGB frames of S x S pixels.
public struct ClipSpec: Codable, Equatable, Sendable {
    /// T, frames sampled from a segment.
    public let numFrames: Int
    /// S, height and width of the crop that the encoder sees, pixels.
    public let imageSize: Int
    /// The frame's shorter side before the centre crop, pixels.
    public let resizeSize: Int
    /// Per channel (R, G, B), of pixel values in 0...1.
    public let mean: [Double]
    /// Per channel (R, G, B), of pixel values in 0...1.
    public let std: [Double]
    /// How times are chosen; only "bins" is known: the middle of each of T equal bins.
    public let sampling: String
    /// The candidates.
    public let grid: Grid

    enum CodingKeys: String, CodingKey {
        case numFrames = "num_frames"
        case imageSize = "image_size"
        case resizeSize = "resize_size"
        case mean
        case std
        case sampling
        case grid
    }

    public init(
        numFrames: Int = 16,
        imageSize: Int = 224,
        resizeSize: Int = 256,
        mean: [Double] = [0.485, 0.456, 0.406],
        std: [Double] = [0.229, 0.224, 0.225],
        sampling: String = "bins",
        grid: Grid = Grid()
    ) {
        self.numFrames = numFrames
        self.imageSize = imageSize
        self.resizeSize = resizeSize
        self.mean = mean
        self.std = std
        self.sampling = sampling
        self.grid = grid
    }

    /// What is wrong with it and what was expected; nil where all is well.
    public var fault: String? {
        let counts = [("num_frames", numFrames), ("image_size", imageSize), ("resize_size", resizeSize)]
        for (name, value) in counts where value < 1 {
            return "clip.\(name) is \(value), expected at least 1"
        }
        if resizeSize < imageSize {
            return "clip.resize_size is \(resizeSize), expected at least image_size \(imageSize)"
        }
        if mean.count != 3 || std.count != 3 {
            return "clip.mean and clip.std have \(mean.count) and \(std.count) values, expected three each"
        }
        if !mean.allSatisfy({ $0.isFinite }) || !std.allSatisfy({ $0.isFinite && $0 > 0 }) {
            return "clip.mean is \(mean) and clip.std is \(std), expected finite means and positive stds"
        }
        if sampling != "bins" {
            return "clip.sampling is \"\(sampling)\", expected \"bins\""
        }
        if !(grid.fps > 0 && grid.fps <= 1000) {
            return "clip.grid.fps is \(grid.fps), expected more than 0 and at most 1000"
        }
        if !(1...10_000).contains(grid.minFrames) {
            return "clip.grid.min_frames is \(grid.minFrames), expected 1 to 10000"
        }
        if numFrames > grid.minFrames {
            return "clip.num_frames is \(numFrames), expected at most grid.min_frames \(grid.minFrames)"
        }
        return nil
    }
}
