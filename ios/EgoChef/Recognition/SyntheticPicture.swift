import CoreVideo
import Foundation

/// Pictures of noise, the same for the same seed: to warm models up and to measure them.
enum SyntheticPicture {
    /// 32BGRA, `size` x `size`.
    static func make(size: Int, seed: UInt64) throws -> CVPixelBuffer {
        let attributes: [String: Any] = [kCVPixelBufferIOSurfacePropertiesKey as String: [String: Any]()]
        var made: CVPixelBuffer?
        CVPixelBufferCreate(
            kCFAllocatorDefault, size, size, kCVPixelFormatType_32BGRA, attributes as CFDictionary, &made
        )
        guard let picture = made else { throw CropFault.noMemory }
        CVPixelBufferLockBaseAddress(picture, [])
        defer { CVPixelBufferUnlockBaseAddress(picture, []) }
        guard let base = CVPixelBufferGetBaseAddress(picture) else { throw CropFault.noMemory }
        let words = CVPixelBufferGetBytesPerRow(picture) * size / MemoryLayout<UInt32>.stride
        let pixels = base.assumingMemoryBound(to: UInt32.self)
        var state = seed
        for place in 0..<words {
            // Knuth's MMIX generator; its upper bits are the good ones.
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            pixels[place] = UInt32(truncatingIfNeeded: state >> 32) | 0xFF00_0000
        }
        return picture
    }
}
